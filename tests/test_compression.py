"""Compression of values in the block file, from outside: a smaller file, and the same values after a restart."""

import json
import os
import random
import subprocess

import pytest

import node as nodes

pytestmark = pytest.mark.bowline

COUNT = 5000


def values() -> dict[bytes, bytes]:
    """Keys with values of all lengths: texts that become smaller, bytes that do not, numbers, one in chunks of each kind."""
    chosen = random.Random(7)
    made = {}
    for number in range(COUNT):
        entry = {"id": number, "name": f"user {chosen.randrange(10**6)}", "tags": ["red", "green"] * chosen.randrange(1, 40)}
        made[b"text:%d" % number] = json.dumps(entry).encode()
    for number in range(100):
        made[b"bytes:%d" % number] = chosen.randbytes(chosen.randrange(3000))
        made[b"number:%d" % number] = b"%d" % chosen.randrange(-(10**12), 10**12)
    made[b"large:text"] = json.dumps([entry.decode() for entry in list(made.values())[:COUNT]]).encode()
    made[b"large:bytes"] = chosen.randbytes(1_000_000)
    return made


def fill(client, entries):
    """Sets them all."""
    with client.pipeline(transaction=False) as pipeline:
        for key, value in entries.items():
            pipeline.set(key, value)
        pipeline.execute()


def expect(client, entries):
    """They are all there, and nothing else."""
    assert client.dbsize() == len(entries)
    assert client.mget(list(entries)) == list(entries.values())


def used_bytes(node) -> int:
    """Bytes of the blocks in use, as --inspect counts them."""
    told = subprocess.run([nodes.KV_SERVER, "--inspect", node.data], capture_output=True, text=True, check=True).stdout
    used, section = 0, ""
    for line in told.splitlines():
        if not line.startswith(" "):
            section = line
        elif section == "blocks" and (words := line.split()) and words[0] != "free":
            used += 4096 * int(next(word for word in words if word.isdigit()))
    return used


def kinds(node) -> set[str]:
    """How the values stand in the file."""
    told = subprocess.run([nodes.KV_SERVER, "--inspect", node.data], capture_output=True, text=True, check=True).stdout
    rows = told.split("\nvalues\n")[1].split("\nindex:")[0]
    return {line[2:18].strip() for line in rows.splitlines() if not line.startswith("  a dictionary")}


@pytest.mark.parametrize("kind", ["lz4", "zstd"])
def test_a_compressed_file_is_smaller_and_holds_the_same(make_node, kind):
    entries, used = values(), {}
    for compression in ("none", kind):
        node = make_node("--compression", compression).start()
        with node.client() as client:
            fill(client, entries)
            client.execute_command("SAVE")
        node.kill()
        used[compression] = used_bytes(node)
        assert kinds(node) == {"none": {"plain"}, "lz4": {"plain", "lz4"}, "zstd": {"plain", "zstd", "zstd, dictionary"}}[compression]
        assert subprocess.run([nodes.KV_SERVER, "--check", node.data], capture_output=True, check=False).returncode == 0
        node.start()
        with node.client() as client:
            expect(client, entries)
        node.kill()
    assert used[kind] < 0.7 * used["none"], used


def test_the_setting_may_change_while_serving_and_at_any_start(make_node):
    entries = values()
    node = make_node("--compression", "lz4").start()
    with node.client() as client:
        fill(client, entries)
        client.execute_command("SAVE")
        assert client.config_get("compression") == {"compression": "lz4"}
        client.config_set("compression", "zstd")
        client.config_set("compression-level", 9)
        changed = {key: value + value for key, value in list(entries.items())[:1000]}
        entries |= changed
        fill(client, changed)
        client.execute_command("SAVE")
    node.kill()
    assert kinds(node) == {"plain", "lz4", "zstd", "zstd, dictionary"}
    node.arguments = ["--compression", "none"]
    node.start()
    with node.client() as client:
        expect(client, entries)
        client.set("text:1", entries[b"text:1"] * 2)
        entries[b"text:1"] *= 2
        client.execute_command("SAVE")
    node.kill()
    assert kinds(node) == {"plain", "lz4", "zstd", "zstd, dictionary"}
    node.start()
    with node.client() as client:
        expect(client, entries)


def test_short_values_that_are_alike_take_less_by_a_dictionary_also_after_everything_was_emptied(make_node):
    chosen, used = random.Random(3), {}
    texts = [json.dumps({"id": number, "user": f"u{chosen.randrange(10**5)}", "open": number % 2 == 0, "score": chosen.random()}).encode()
             for number in range(20_000)]
    for compression in ("none", "zstd"):
        node = make_node("--compression", compression).start()
        for prefix in ("one", "two"):
            entries = {f"{prefix}:{number}".encode(): text for number, text in enumerate(texts)}
            with node.client() as client:
                client.flushall()
                fill(client, entries)
                client.execute_command("SAVE")
            node.kill()
            used[compression] = used_bytes(node)
            node.start()
            with node.client() as client:
                expect(client, entries)
        node.kill()
    assert used["zstd"] < 0.8 * used["none"], used


def test_a_level_that_there_is_not_is_refused_by_name(make_node):
    node = make_node().start()
    with node.client() as client:
        for name, value in (("compression", "gzip"), ("compression-level", 0), ("compression-level", 23)):
            with pytest.raises(Exception, match="CONFIG SET failed"):
                client.config_set(name, value)


def test_a_backup_of_a_compressed_file_is_restored(make_node, tmp_path):
    entries = values()
    node = make_node("--compression", "zstd").start()
    with node.client() as client:
        fill(client, entries)
        client.execute_command("SAVE")
    backup = tmp_path / "backup.bowline"
    subprocess.run([nodes.KV_CLIENT, f"--server=127.0.0.1:{node.port}", "backup", backup], check=True, capture_output=True)
    node.kill()
    assert os.path.getsize(backup) > used_bytes(node), "a backup holds plain values"
    restored = make_node("--compression", "lz4", "--restore", backup)
    restored.launch()
    assert restored.wait() == 0
    assert kinds(restored) == {"plain", "lz4"}
    restored.arguments = ["--compression", "lz4"]
    restored.start()
    with restored.client() as client:
        expect(client, entries)
