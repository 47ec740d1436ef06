"""The block file on a raw block device: a loop device over a file, where root may make one."""

import subprocess
import time

import pytest
import redis

import node as nodes

OK, START_FAILED, DAMAGED = 0, 1, 4

pytestmark = [pytest.mark.bowline, pytest.mark.needs("losetup")]


@pytest.fixture
def device(tmp_path):
    """An empty device of 24 MiB."""
    image = tmp_path / "device.image"
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    made = subprocess.run([nodes.tool("losetup"), "-f", "--show", str(image)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.decode().strip()}")
    name = made.stdout.decode().strip()
    yield name
    subprocess.run([nodes.tool("losetup"), "-d", name], check=True)


def run(*arguments) -> subprocess.CompletedProcess:
    """Runs kv_server for something else than serving."""
    line = [nodes.KV_SERVER, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False)


def fill(client, count, size=900):
    """Writes keys in one go."""
    with client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"key:{number}", f"{number}:" + "v" * size)
        pipeline.execute()


def test_a_store_on_a_device_is_checkpointed_killed_and_comes_back(make_node, device):
    node = make_node("--block-file", device, "--wal_file_size", "1mb", "--wal_buffer_size", "64kb").start()
    with node.client() as client:
        fill(client, 3000)
        client.set("large", "l" * 2_000_000)
        client.execute_command("SAVE")
        client.set("after", "the checkpoint")
    node.kill()
    node.start()
    with node.client() as client:
        assert client.dbsize() == 3002 and client.get("after") == b"the checkpoint"
        assert client.get("key:2999") == b"2999:" + b"v" * 900 and client.strlen("large") == 2_000_000
        client.delete("large")
    assert node.terminate() == OK
    checked = run("--check", node.data, "--block-file", device)
    assert checked.returncode == OK, checked.stdout + checked.stderr
    assert f"block file {device}".encode() in checked.stdout and b"3001 entries" in checked.stdout
    for arguments in ((device,), (node.data, "--block-file", device)):
        inspected = run("--inspect", *arguments)
        assert inspected.returncode == OK, inspected.stderr
        assert b"fixed size" in inspected.stdout and b"3001 entries" in inspected.stdout
    with open(device, "r+b") as blocks:
        blocks.seek(6 << 12)
        spoilt = bytearray(blocks.read(1 << 20))
        at = spoilt.find(b"v" * 64)
        assert at >= 0
        blocks.seek((6 << 12) + at)
        blocks.write(b"w")
    assert run("--check", node.data, "--block-file", device).returncode == DAMAGED
    refused = run("--repair", node.data, "--yes", "--block-file", device)
    assert refused.returncode == START_FAILED and b"copy it into a file" in refused.stderr


def test_a_full_device_refuses_writes_and_goes_on(make_node, device):
    node = make_node(
        "--block-file", device, "--wal_file_size", "1mb", "--wal_buffer_size", "64kb", "--checkpoint-log-size", "4mb"
    ).start()
    with node.client() as client:
        with pytest.raises(redis.ResponseError) as refused:
            for number in range(60_000):
                client.set(f"key:{number}", "v" * 2000)
        assert device in str(refused.value) and "full" in str(refused.value), refused.value
        kept = client.dbsize()
        assert kept * 2000 > (24 << 20) * 6 // 10, kept
        assert client.get(f"key:{kept - 1}") == b"v" * 2000
        client.delete(*(f"key:{number}" for number in range(kept // 2)))

        def is_taken():
            try:
                return client.set("again", "there is room")
            except redis.ResponseError:
                return False

        nodes.until(is_taken, "room on the device", 60)
    node.kill()
    node.start()
    with node.client() as client:
        assert client.get("again") == b"there is room"
        assert client.dbsize() == kept - kept // 2 + 1
    assert node.terminate() == OK
    assert run("--check", node.data, "--block-file", device).returncode == OK


def test_killed_while_it_is_made_it_is_made_again(make_node, device):
    node = make_node("--block-file", device)
    for turn in range(8):
        node.launch()
        time.sleep(0.004 * turn)
        node.kill()
    node.start()
    with node.client() as client:
        fill(client, 100)
        client.execute_command("SAVE")
    assert node.terminate() == OK
    node.start()
    with node.client() as client:
        assert client.dbsize() == 100


@pytest.mark.needs("mkfs.ext4")
def test_a_device_with_something_on_it_is_left_alone(make_node, device, tmp_path):
    subprocess.run([nodes.tool("mkfs.ext4"), "-q", device], check=True, capture_output=True)
    with open(device, "rb") as blocks:
        before = blocks.read()
    node = make_node("--block-file", device).launch()
    assert node.wait() == DAMAGED, node.printed()
    assert device in node.printed()
    with open(device, "rb") as blocks:
        assert blocks.read() == before
    other = make_node().start()
    with other.client() as client:
        client.set("key", "value")
    backup = tmp_path / "base.bowline"
    assert nodes.kv_client("backup", str(backup), port=other.port).returncode == OK
    restored = run("--restore", backup, "--dir", node.data / "new", "--block-file", device)
    assert restored.returncode == START_FAILED and b"is not empty" in restored.stderr, restored.stderr
    with open(device, "rb") as blocks:
        assert blocks.read() == before
    with open(device, "r+b") as blocks:
        blocks.write(bytes(1 << 20))
    restored = run("--restore", backup, "--dir", node.data / "other", "--block-file", device)
    assert restored.returncode == OK, restored.stderr
    copy = make_node("--block-file", device)
    copy.data = node.data / "other"
    copy.start()
    with copy.client() as client:
        assert client.get("key") == b"value"
