"""A full disk, and a full block file, at every phase: writes are refused, reads and removals go on, nothing is lost.

The disk is a small ext4 image of the test's own; ballast takes what room is to be missing and gives it back later.
"""

import os
import re

import pytest
import redis

import node as nodes
from file_system import FileSystem

KILOBYTE, MEGABYTE = 1 << 10, 1 << 20
SMALL_LOG = ("--wal_file_size", "1mb", "--wal_buffer_size", "64kb")

pytestmark = pytest.mark.bowline


def persistence(client) -> dict:
    """INFO persistence."""
    return client.info("persistence")


class Filler:
    """Sets keys to values of their own and remembers what was acknowledged."""

    def __init__(self, client, value_bytes: int):
        self.client, self.value_bytes = client, value_bytes
        self.next_number = 0
        self.kept: dict[bytes, bytes] = {}

    @staticmethod
    def key(number: int) -> bytes:
        """A key of 16 bytes."""
        return b"key:%012d" % number

    def value(self, number: int) -> bytes:
        """Bytes that no other key has, and that no compression shortens much."""
        start = b"%d:" % number
        return (start + os.urandom(self.value_bytes))[:self.value_bytes]

    def until_refused(self, most: int, batch: int = 200) -> str:
        """Writes on until one is refused; returns why."""
        while self.next_number < most:
            pairs = [(self.key(self.next_number + i), self.value(self.next_number + i)) for i in range(batch)]
            self.next_number += batch
            pipeline = self.client.pipeline(transaction=False)
            for key, value in pairs:
                pipeline.set(key, value)
            refusal = None
            for (key, value), answer in zip(pairs, pipeline.execute(raise_on_error=False)):
                if answer is True:
                    self.kept[key] = value
                else:
                    refusal = str(answer)
            if refusal is not None:
                return refusal
        raise AssertionError(f"{most} values of {self.value_bytes} bytes were taken")

    def write(self, count: int, batch: int):
        """Writes so many keys more, each of which must be taken."""
        for start in range(self.next_number, self.next_number + count, batch):
            pairs = {self.key(number): self.value(number) for number in range(start, start + batch)}
            assert self.client.mset(pairs) is True
            self.kept.update(pairs)
            self.next_number = start + batch

    def remove(self, keys):
        """Removes keys, each of which is there, a hundred at a time: the reserve of a full log is one megabyte."""
        for start in range(0, len(keys), 100):
            part = keys[start:start + 100]
            assert self.client.delete(*part) == len(part), "a removal must go on"
            for key in part:
                del self.kept[key]

    def remove_half(self):
        """Removes every second key: no block of the block file is all free then."""
        self.remove(list(self.kept)[::2])

    def user_bytes(self) -> int:
        """Keys and values that are there."""
        return sum(len(key) + len(value) for key, value in self.kept.items())

    def verify(self, client):
        """Everything acknowledged is there, and nothing else."""
        assert client.dbsize() == len(self.kept)
        keys = list(self.kept)
        for start in range(0, len(keys), 1000):
            part = keys[start:start + 1000]
            assert client.mget(part) == [self.kept[key] for key in part]


def accepts_a_write(client):
    """Whether a write is taken again; anything but MISCONF or the block file's error would be a surprise."""
    try:
        return client.set("resumed", "r" * 1000)
    except redis.ResponseError as error:
        assert re.match(r"MISCONF|.*block file", str(error)), error
        return False


def assert_survives_a_restart(node, filler):
    """After a kill, and after a checkpoint and another kill, everything is there and the files are sound."""
    for _ in range(2):
        node.kill()
        node.start()
        with node.client(socket_timeout=60) as client:
            filler.verify(client)
            client.execute_command("SAVE")
    node.kill()


def make_ballast(file_system: FileSystem, left: int):
    """Fills the file system so that `left` bytes are free."""
    ballast = file_system.place / "ballast"
    with open(ballast, "wb") as file:
        while (more := file_system.free_bytes() - left) > 4096:
            file.write(b"b" * min(more // 2 + 2048, 8 * MEGABYTE))
            file.flush()
            os.fsync(file.fileno())
    return ballast


@pytest.fixture
def disk(tmp_path):
    """A file system of 96 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    with FileSystem("ext4", place, 96) as file_system:
        yield file_system


def node_on(disk, make_node, *arguments):
    """A node whose data is on that file system."""
    node = make_node(*SMALL_LOG, *arguments)
    node.data = disk.place / "data"
    return node


def test_a_disk_that_is_full_while_a_log_file_is_prepared(make_node, disk):
    node = node_on(disk, make_node).start()
    with node.client(socket_timeout=60) as client:
        filler = Filler(client, 10_000)
        ballast = make_ballast(disk, 12 * MEGABYTE)
        refusal = filler.until_refused(10_000)
        assert refusal.startswith("MISCONF") and re.search("full|space", refusal), refusal
        filler.verify(client)
        filler.remove(list(filler.kept)[:20])
        assert client.exists("resumed") == 0
        ballast.unlink()
        nodes.until(lambda: accepts_a_write(client), "writes to resume by themselves")
        client.delete("resumed")
        filler.verify(client)
    assert_survives_a_restart(node, filler)


def test_a_disk_that_is_full_while_a_checkpoint_grows_the_block_file(make_node, disk):
    node = node_on(disk, make_node, "--checkpoint-log-size", "1gb").start()
    with node.client(socket_timeout=60) as client:
        filler = Filler(client, 10_000)
        # Everything is in the log; the block file is to grow by as much, and may not.
        while len(filler.kept) < 1500:
            filler.next_number += 1
            key, value = filler.key(filler.next_number), filler.value(filler.next_number)
            client.set(key, value)
            filler.kept[key] = value
        ballast = make_ballast(disk, 5 * MEGABYTE)
        with pytest.raises(redis.ResponseError, match="(?i)space|full|room"):
            client.execute_command("SAVE")
        assert persistence(client)["rdb_last_bgsave_status"] == "err"
        assert client.ping()
        filler.verify(client)
        filler.remove(list(filler.kept)[:20])
        # What a failed checkpoint took is dirty again: the log may not forget it with the next one.
        ballast.unlink()
        assert client.execute_command("SAVE")
        assert persistence(client)["rdb_last_bgsave_status"] == "ok"
        assert client.set("resumed", "r") and client.delete("resumed") == 1
        assert persistence(client)["log_bytes"] < 100_000
    assert_survives_a_restart(node, filler)


def test_a_disk_that_fills_up_under_writes_and_checkpoints(make_node, disk):
    """Whichever of log and block file meets the end of the disk first: refused, never lost, and it resumes."""
    node = node_on(disk, make_node, "--checkpoint-log-size", "4mb").start()
    with node.client(socket_timeout=120) as client:
        filler = Filler(client, 40_000)
        ballast = make_ballast(disk, 60 * MEGABYTE)
        refusal = filler.until_refused(100_000, 20)
        assert refusal.startswith("MISCONF") and re.search("(?i)full|space|room", refusal), refusal
        filler.verify(client)
        filler.remove_half()
        filler.verify(client)
        # Removals give blocks back with the next checkpoint, which itself may need more than there is.
        ballast.unlink()

        def resumes():
            try:
                client.execute_command("SAVE")
            except redis.ResponseError:
                return False
            return accepts_a_write(client)

        nodes.until(resumes, "writes to resume after space was freed")
        client.delete("resumed")
        filler.verify(client)
    assert_survives_a_restart(node, filler)


@pytest.mark.parametrize("value_bytes", [4 * KILOBYTE, 100])
def test_removals_give_space_back_on_a_disk_that_stays_full(make_node, disk, value_bytes):
    """A checkpoint copies the index before it frees anything: a block file that grows keeps blocks for that."""
    node = node_on(disk, make_node).start()
    with node.client(socket_timeout=120) as client:
        filler = Filler(client, value_bytes)
        filler.write(20 * MEGABYTE // value_bytes, 100)
        assert client.execute_command("SAVE")
        make_ballast(disk, 0)
        some = MEGABYTE // 4 // value_bytes // 8 * 8
        with pytest.raises(redis.ResponseError, match="No space"):
            while True:
                # What the file has beside what it keeps.
                filler.write(some, 8)
                client.execute_command("SAVE")
        filler.remove(list(filler.kept)[-some:])
        for _ in range(2):
            # Two of three go, the disk stays as full as it is, and a part of that fits in again.
            removed = [key for place, key in enumerate(filler.kept) if place % 3]
            step = len(removed) // 8
            for start in range(0, len(removed), step):
                filler.remove(removed[start:start + step])
                assert client.execute_command("SAVE"), "a checkpoint needs no room on the disk"
            for _ in range(10):
                client.set("changed", os.urandom(10))
                assert client.execute_command("SAVE"), "nor does compaction"
            filler.kept[b"changed"] = client.get("changed")
            filler.write(len(removed) // 4, 10)
            assert client.execute_command("SAVE")
            filler.verify(client)
    assert_survives_a_restart(node, filler)


@pytest.mark.parametrize("value_bytes", [KILOBYTE, 32])
def test_a_block_file_of_fixed_size_that_is_full(make_node, value_bytes):
    node = make_node("--block-file-size", "8mb", *SMALL_LOG).start()
    with node.client(socket_timeout=120) as client:
        filler = Filler(client, value_bytes)
        for round_number in range(2):
            refusal = filler.until_refused(1_000_000, 500)
            # redis-py takes the word ERR off.
            assert "store.blocks is full at 8388608 bytes: delete" in refusal and "MISCONF" not in refusal, refusal
            filler.verify(client)
            with pytest.raises(redis.ResponseError):
                client.set("refused", "x" * 100_000)
            assert client.exists("refused") == 0
            filler.remove_half()
            assert client.execute_command("SAVE")
            nodes.until(lambda: accepts_a_write(client), f"writes to resume after removals, round {round_number}")
            client.delete("resumed")
        filler.until_refused(1_000_000, 500)
    node.kill()
    node.start()
    with node.client(socket_timeout=60) as client:
        filler.verify(client)
        filler.client = client
        filler.remove_half()
        assert client.execute_command("SAVE")
        nodes.until(lambda: accepts_a_write(client), "writes to resume after a restart")
        client.delete("resumed")
    assert_survives_a_restart(node, filler)


@pytest.mark.parametrize("value_bytes, least_percent", [(KILOBYTE, 80), (32, 50)])
def test_a_block_file_of_64_mb_holds_what_it_should(make_node, value_bytes, least_percent):
    node = make_node("--block-file-size", "64mb").start()
    with node.client(socket_timeout=120) as client:
        filler = Filler(client, value_bytes)
        filler.until_refused(4_000_000, 2000)
        assert os.path.getsize(node.data / "store.blocks") <= 64 * MEGABYTE
        percent = 100 * filler.user_bytes() / (64 * MEGABYTE)
        values = 100 * len(filler.kept) * value_bytes / (64 * MEGABYTE)
        print(f"{len(filler.kept)} values of {value_bytes} bytes: {values:.1f} % of 64 MB, with keys {percent:.1f} %")
        assert percent >= least_percent
    node.kill()
    node.start()
    with node.client(socket_timeout=60) as client:
        filler.verify(client)
