"""Backups and restores from outside: a server under load, real files, damage, two pasts in one archive, a full disk."""

import datetime
import os
import subprocess
import threading

import pytest
import redis

import node as nodes

OK, FAILED, USAGE, DAMAGED = 0, 1, 2, 4

pytestmark = pytest.mark.bowline


def entries(client) -> dict:
    """Every key of database 0 with its value and version."""
    found = {}
    for key in client.scan_iter(count=1000):
        entry = client.execute_command("BL.ENTRY", key)
        fields = dict(zip(entry[::2], entry[1::2])) if isinstance(entry, list) else entry
        found[key] = (client.get(key), int(fields[b"version"]))
    return found


def versions(client, *keys) -> list[int]:
    """The versions of keys."""
    return [int(dict(zip(e[::2], e[1::2]))[b"version"]) for e in (client.execute_command("BL.ENTRY", k) for k in keys)]


def back_up(node, path, *options) -> str:
    """Makes a backup with the client; returns what it printed."""
    done = nodes.kv_client("backup", str(path), *options, port=node.port)
    assert done.returncode == OK, done.stderr
    return done.stdout.decode()


def restore(directory, backup, *arguments) -> subprocess.CompletedProcess:
    """Runs kv_server --restore into a directory."""
    line = [nodes.KV_SERVER, "--restore", str(backup), "--dir", str(directory), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, timeout=120, check=False)


def restored(make_node, backup, *arguments, serve=()) -> nodes.Node:
    """A node that serves what a restore gave."""
    node = make_node(*serve)
    done = restore(node.data, backup, *arguments)
    assert done.returncode == OK, done.stderr
    assert b"restored into" in done.stdout
    return node.start()


def moment(client) -> str:
    """A moment after everything written so far and before everything written later, as people write it."""
    def now_ms():
        seconds, micros = client.time()
        return seconds * 1000 + micros // 1000

    now = now_ms()
    nodes.until(lambda: now_ms() > now + 1, "the clock to move on")
    return datetime.datetime.fromtimestamp(now / 1000, datetime.UTC).isoformat(timespec="milliseconds")


class Load:
    """Threads that write until they are told to stop, and know what was acknowledged."""

    def __init__(self, node, threads=3):
        self.node, self.stop = node, threading.Event()
        self.writes, self.problems = [], []
        self.threads = [threading.Thread(target=self.write, args=(number,)) for number in range(threads)]

    def write(self, number):
        """Each key belongs to one thread, so its versions rise in the order of its writes."""
        try:
            with self.node.client() as client:
                turn = 0
                while not self.stop.is_set():
                    key, value = f"load:{number}:{turn % 97}".encode(), f"{turn}:{'v' * (turn % 400)}".encode()
                    client.set(key, value)
                    self.writes.append((versions(client, key)[0], key, value))
                    turn += 1
        except Exception as problem:
            self.problems.append(problem)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        nodes.until(lambda: len(self.writes) > 300, "the load to begin")
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.problems, self.problems


def test_a_backup_under_load_is_exactly_the_state_at_its_cut(make_node, tmp_path):
    node = make_node("--wal_file_size", "1mb").start()
    path = tmp_path / "base.bowline"
    with node.client() as client:
        with client.pipeline(transaction=False) as pipeline:
            for number in range(5000):
                pipeline.set(f"still:{number}", f"{number}" * 20)
            pipeline.execute()
        with Load(node) as load:
            text = back_up(node, path)
            count = len(load.writes)
            nodes.until(lambda: len(load.writes) > count + 300, "writes after the backup")
        still = {key: value for key, value in entries(client).items() if key.startswith(b"still")}
        assert client.info("persistence")["backups_running"] == 0
    cut = int(text.split("version ")[1].split(",")[0])
    expected = dict(still)
    for version, key, value in sorted(load.writes):
        if version <= cut:
            expected[key] = (value, version)
    assert max(version for version, *_ in load.writes) > cut
    assert f"{len(expected)} entries" in text and not path.with_name(path.name + ".partial").exists()
    copy = restored(make_node, path)
    with copy.client() as client:
        assert entries(client) == expected
    checked = subprocess.run([nodes.KV_SERVER, "--check", str(path)], capture_output=True, check=False)
    assert checked.returncode == OK and b"sound" in checked.stdout


def test_databases_expiry_and_large_values_are_in_a_backup(make_node, tmp_path):
    node = make_node().start()
    path = tmp_path / "base.bowline"
    large = os.urandom(3_500_000)
    with node.client() as client:
        client.set("expires", "later", pxat=4_000_000_000_123)
        client.set("number", 12345)
        client.set("large", large)
        client.execute_command("SELECT", 3)
        client.set("three", "3")
        client.execute_command("SWAPDB", 3, 5)
        client.execute_command("SELECT", 4)
        client.set("gone", "4")
        client.flushdb()
    back_up(node, path, "--rate", "20mb")
    with restored(make_node, path).client() as client:
        assert client.get("large") == large and client.object("encoding", "number") == b"int"
        assert client.pexpiretime("expires") == 4_000_000_000_123
        assert set(client.info("keyspace")) == {"db0", "db5"}
        client.execute_command("SELECT", 5)
        assert client.get("three") == b"3"


def test_a_backup_goes_to_a_pipe(make_node, tmp_path):
    node = make_node().start()
    with node.client() as client:
        client.set("key", "value")
    done = nodes.kv_client("backup", "-", port=node.port)
    assert done.returncode == OK and b"1 entries" in done.stderr
    path = tmp_path / "base.bowline"
    path.write_bytes(done.stdout)
    with restored(make_node, path).client() as client:
        assert client.get("key") == b"value"


def test_damage_and_missing_ends_are_refused_by_name(make_node, tmp_path):
    node = make_node().start()
    path, wrong = tmp_path / "base.bowline", tmp_path / "wrong.bowline"
    with node.client() as client:
        for number in range(200):
            client.set(f"key:{number}", "v" * 100)
    back_up(node, path)
    whole = path.read_bytes()
    spoilt = [bytes([whole[0] ^ 1]) + whole[1:], whole[:-1], whole[: len(whole) // 2], b"", whole + b"x"]
    for at in range(5, len(whole), len(whole) // 20):
        spoilt.append(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    for number, content in enumerate(spoilt):
        wrong.write_bytes(content)
        done = restore(tmp_path / "data", wrong)
        assert done.returncode == DAMAGED and str(wrong).encode() in done.stderr, (number, done.stderr)
        checked = subprocess.run([nodes.KV_SERVER, "--check", str(wrong)], capture_output=True, check=False)
        assert checked.returncode == DAMAGED and str(wrong).encode() in checked.stderr, (number, checked.stderr)
    assert restore(tmp_path / "data", path).returncode == OK


def test_a_mistake_of_yesterday_is_undone_by_time_and_by_version(make_node, tmp_path):
    archive, path = tmp_path / "archive", tmp_path / "base.bowline"
    node = make_node("--archive-dir", archive, "--wal_file_size", "1mb").start()
    with node.client() as client:
        client.set("before", "the backup")
        back_up(node, path)
        with client.pipeline(transaction=False) as pipeline:
            for number in range(6000):
                pipeline.set(f"key:{number}", "v" * 1000)
            pipeline.execute()
        client.delete("key:7")
        client.set("last", "word")
        good, before, last = entries(client), moment(client), versions(client, "last")[0]
        client.flushall()
        client.set("after", "the mistake")
        figures = client.info("persistence")
        assert figures["archive_enabled"] == 1 and figures["archive_last_error"] == ""
    node.terminate()
    files = sorted(archive.glob("*.log"))
    assert len(files) > 3
    checked = subprocess.run([nodes.KV_SERVER, "--check", str(archive)], capture_output=True, check=False)
    assert checked.returncode == OK and b"sound" in checked.stdout, checked.stderr
    for target in (("--to-time", before), ("--to-version", last)):
        copy = restored(make_node, path, "--archive-dir", archive, *target)
        with copy.client() as client:
            assert entries(client) == good
    copy = restored(make_node, path, "--archive-dir", archive)
    with copy.client() as client:
        assert client.keys() == [b"after"]
    # A file of the archive that is missing or rotten is named, and nothing is skipped.
    middle = files[2].read_bytes()
    for spoilt in (middle[:50_000] + bytes([middle[50_000] ^ 1]) + middle[50_001:], None):
        if spoilt is None:
            files[2].unlink()
        else:
            files[2].write_bytes(spoilt)
        done = restore(tmp_path / "data", path, "--archive-dir", archive, "--to-time", before)
        named = files[2] if spoilt else files[1]
        assert done.returncode in (FAILED, DAMAGED) and str(named).encode() in done.stderr, done.stderr
        checked = subprocess.run([nodes.KV_SERVER, "--check", str(archive)], capture_output=True, check=False)
        assert checked.returncode == DAMAGED and str(named).encode() in checked.stderr


def test_targets_out_of_reach_are_refused_with_what_can_be_reached(make_node, tmp_path):
    archive, path = tmp_path / "archive", tmp_path / "base.bowline"
    node = make_node("--archive-dir", archive).start()
    with node.client() as client:
        client.set("a", 1)
        first = versions(client, "a")[0]
        client.set("b", 1)
        cut = int(back_up(node, path).split("version ")[1].split(",")[0])
        client.set("c", 1)
        last = versions(client, "c")[0]
    node.terminate()
    data = tmp_path / "data"
    for arguments, words in [
        (("--to-version", first), f"version {cut}"),
        (("--to-time", "2020-01-01T00:00:00Z"), f"version {cut}"),
        (("--to-version", last + 1), f"version {last}"),
        (("--to-time", "2999-01-01T00:00:00Z"), f"version {last}"),
    ]:
        done = restore(data, path, "--archive-dir", archive, *arguments)
        assert done.returncode == FAILED and words.encode() in done.stderr, done.stderr
    assert restore(data, path, "--to-time", "yesterday").returncode == USAGE
    assert restore(node.data, path).returncode == FAILED
    assert restore(data, path, "--archive-dir", archive, "--to-version", last).returncode == OK


def test_of_two_pasts_in_one_archive_the_one_alive_at_the_target_is_restored(make_node, tmp_path):
    """History 24: restore to 10:15 at 12:00, go on, restore to 13:00."""
    archive, path = tmp_path / "archive", tmp_path / "base.bowline"
    serve = ("--archive-dir", archive, "--wal_file_size", "1mb")
    first = make_node(*serve).start()
    with first.client() as client:
        client.set("begin", 0)
        back_up(first, path)
        client.set("common", "1")
        at_10_15, state_10_15 = moment(client), entries(client)
        client.set("mistake", "1")
        at_11_00, state_11_00 = moment(client), entries(client)
    first.terminate()
    second = restored(make_node, path, "--archive-dir", archive, "--to-time", at_10_15, serve=serve)
    with second.client() as client:
        assert entries(client) == state_10_15
        client.set("second", "life")
        client.delete("begin")
        at_13_00, state_13_00 = moment(client), entries(client)
        client.set("more", "1")
    second.terminate()
    for target, state in ((at_10_15, state_10_15), (at_11_00, state_11_00), (at_13_00, state_13_00)):
        with restored(make_node, path, "--archive-dir", archive, "--to-time", target).client() as client:
            assert entries(client) == state


def test_reading_a_backup_does_not_hold_up_others_and_ends_with_its_connection(make_node):
    node = make_node().start()
    with node.client() as client, node.client() as reader:
        for number in range(20):
            client.set(f"key:{number}", os.urandom(1_000_000))
        begun = reader.execute_command("BL.BACKUP", "BEGIN", "RATE", 100_000)
        figures = dict(zip(begun[::2], begun[1::2]))
        assert figures[b"entries"] == 20 and figures[b"bytes"] >= 20_000_000
        with pytest.raises(redis.ResponseError, match="has a backup already"):
            reader.execute_command("BL.BACKUP", "BEGIN")
        with pytest.raises(redis.ResponseError, match="no backup of that id"):
            client.execute_command("BL.BACKUP", "READ", figures[b"id"])
        waits = threading.Thread(target=lambda: [reader.execute_command("BL.BACKUP", "READ", figures[b"id"])] * 3)
        waits.start()
        client.set("other", "1")
        assert client.get("other") == b"1"
        waits.join()
        assert client.info("persistence")["backups_running"] == 1
        reader.close()
        nodes.until(lambda: client.info("persistence")["backups_running"] == 0, "the backup to end with its connection")
        for wrong in (("BEGIN", "RATE", "0"), ("BEGIN", "RATE"), ("READ", "1"), ("END", "1"), ("READ", "x"), ("NONE",)):
            with pytest.raises(redis.ResponseError):
                client.execute_command("BL.BACKUP", *wrong)


def test_a_backup_onto_a_full_disk_leaves_nothing_and_says_so(make_node, tmp_path):
    node = make_node().start()
    with node.client() as client:
        for number in range(10):
            client.set(f"key:{number}", os.urandom(1_000_000))
    target = tmp_path / "base.bowline"
    # A limit of file sizes stands for a full disk: the write fails in the middle.
    line = ["bash", "-c", f"trap '' XFSZ; ulimit -f 3000; exec {nodes.KV_CLIENT} -p {node.port} backup {target}"]
    done = subprocess.run(line, capture_output=True, timeout=60, check=False)
    assert done.returncode != OK and b"cannot write" in done.stderr, done.stderr
    assert list(tmp_path.glob("base*")) == []
    back_up(node, target)


def test_a_restore_onto_a_full_disk_serves_nothing_and_works_when_there_is_room(make_node, tmp_path):
    node = make_node().start()
    path = tmp_path / "base.bowline"
    with node.client() as client:
        for number in range(10):
            client.set(f"key:{number}", os.urandom(1_000_000))
    back_up(node, path)
    target = make_node()
    line = ["bash", "-c", f"trap '' XFSZ; ulimit -f 3000; exec {nodes.KV_SERVER} --restore {path} --dir {target.data}"]
    done = subprocess.run(line, capture_output=True, timeout=60, check=False)
    assert done.returncode == FAILED, done.stderr
    assert target.launch().wait() == DAMAGED and "was not finished" in target.printed()
    subprocess.run(["rm", "-r", str(target.data)], check=True)
    assert restore(target.data, path).returncode == OK
    target.start()
    with target.client() as client:
        assert client.dbsize() == 10


def test_a_backup_whose_server_dies_leaves_no_file_and_says_so(make_node, tmp_path):
    node = make_node().start()
    with node.client() as client:
        for number in range(20):
            client.set(f"key:{number}", os.urandom(1_000_000))
    target = tmp_path / "base.bowline"
    line = [nodes.KV_CLIENT, "-p", str(node.port), "--retries", "0", "backup", str(target), "--rate", "1mb"]
    with subprocess.Popen(line, stderr=subprocess.PIPE) as backup:
        partial = tmp_path / "base.bowline.partial"
        nodes.until(lambda: partial.exists() and partial.stat().st_size > 1_000_000, "the backup to be on its way")
        assert not target.exists()
        node.kill()
        _, told = backup.communicate(timeout=60)
    assert backup.returncode == 3, told
    assert list(tmp_path.glob("base*")) == []
