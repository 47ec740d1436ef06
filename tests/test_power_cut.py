"""Power cuts of a real file system under load: what was acknowledged is there when the power comes back.

    several writers and a connection that saves all the time -> the file system is shut down (GOINGDOWN, nothing flushed)
    -> the process is killed -> unmounted, mounted (the journal is replayed) -> restarted -> compared as in test_crash.py

What the page cache held is gone with the unmounting, as it is with the power. Not here: a disk that loses what it said
was on it.

Rounds: KV_POWER_ROUNDS (default 3) for each file system. The seed is printed; KV_CRASH_SEED=<n> repeats the workload.
"""

import contextlib
import os
import random
import threading

import pytest

import node as nodes
from file_system import FileSystem
from test_crash import KEYS_OF_A_WRITER, SEED, WRITERS, Saver, Writer, state_of, verify

ROUNDS = int(os.environ.get("KV_POWER_ROUNDS", "3"))
# mkfs.xfs makes none smaller than 300 MB.
MEGABYTES = {"ext4": 256, "xfs": 320}
KINDS = pytest.mark.parametrize("kind", ["ext4", "xfs"])

pytestmark = pytest.mark.bowline


class PowerWriter(Writer):
    """A writer that takes an error for the end: the disk is gone before the process is."""

    ends_at_an_error = True


class PowerSaver(Saver):
    """The same for the connection that saves."""

    ends_at_an_error = True


@contextlib.contextmanager
def node_on(kind: str, place, make_node, *arguments):
    """A node whose data lies on a file system of its own; what it prints does not."""
    place.mkdir()
    with FileSystem(kind, place, MEGABYTES[kind]) as file_system:
        node = make_node("--wal_file_size", "4mb", "--wal_buffer_size", "1mb", *arguments)
        node.data = place / "data"
        try:
            yield file_system, node
        finally:
            node.kill()


def power_fails(file_system: FileSystem, node):
    """The power goes and comes back; the node is not started again."""
    file_system.cut_power()
    node.kill()
    file_system.unmount()
    file_system.mount()


@KINDS
def test_power_cuts_under_load_lose_no_acknowledged_write(make_node, tmp_path, kind):
    print(f"{kind}: KV_CRASH_SEED={SEED} KV_POWER_ROUNDS={ROUNDS}")
    rng = random.Random(SEED)
    keys = [f"w{w}:{k}{side}" for w in range(WRITERS) for k in range(KEYS_OF_A_WRITER) for side in ("", ":left", ":right")]
    before: dict[str, int | None] = {}
    total = saves = ended = 0
    with node_on(kind, tmp_path / "disk", make_node, "--checkpoint-log-size", "8mb") as (file_system, node):
        node.start()
        for round_number in range(ROUNDS):
            writers = [PowerWriter(w, node.port, round_number * 10_000_000, rng.randrange(2**32)) for w in range(WRITERS)]
            threads = [*writers, PowerSaver(node.port)]
            for thread in threads:
                thread.start()
            target = rng.randrange(1, 4000)
            nodes.until(lambda: sum(w.acknowledged_count for w in writers) >= target or any(w.failure for w in writers),
                        f"{target} acknowledged writes", 120)
            if round_number % 3 == 2:
                # The cut meets a process that is starting: recovery writes too.
                node.kill()
                node.launch()
                threading.Event().wait(rng.random() * 0.1)
            file_system.cut_power()
            if round_number % 2:
                # Acknowledgements that leave after the cut would be lies; the process has time for them.
                threading.Event().wait(rng.random() * 0.3)
                ended += node.process.poll() is not None
            node.kill()
            for thread in threads:
                thread.join()
                assert thread.failure is None, f"round {round_number}: {thread.failure!r}"
            saves += threads[-1].saves
            file_system.unmount()
            file_system.mount()
            node.start()
            after = state_of(node.port, keys)
            try:
                verify(before, after, writers)
            except AssertionError as lost:
                raise AssertionError(f"round {round_number} on {kind}, KV_CRASH_SEED={SEED}: {lost}") from lost
            before = after
            total += sum(writer.acknowledged_count for writer in writers)
    print(f"{kind}: {ROUNDS} power cuts, {total} acknowledged batches of writes, {saves} checkpoints, none lost; "
          f"{ended} times the process had ended by itself")
    assert total > ROUNDS and saves > 0


@KINDS
def test_the_power_cut_of_this_file_loses_what_was_not_synced(make_node, tmp_path, kind):
    """The test of the test: a write at level `none` is gone, one at level `always` is not."""
    with node_on(kind, tmp_path / "disk", make_node) as (file_system, node):
        node.start()
        with node.client() as client:
            client.set("always", 1)
            client.execute_command("BL.DURABILITY", "none")
            client.set("none", 1)
            assert client.get("none") == b"1"
            power_fails(file_system, node)
        node.start()
        with node.client() as client:
            assert client.mget("always", "none") == [b"1", None]


@KINDS
def test_a_process_that_meets_the_power_cut_acknowledges_nothing_more(make_node, tmp_path, kind):
    with node_on(kind, tmp_path / "disk", make_node) as (file_system, node):
        node.start()
        with node.client() as client:
            client.set("before", 1)
            file_system.cut_power()
            with pytest.raises((nodes.redis.ConnectionError, nodes.redis.ResponseError)):
                client.set("after", 1)
        assert node.wait() == 74
        assert "data" in node.printed() and "rror" in node.printed(), node.printed()
        file_system.unmount()
        file_system.mount()
        node.start()
        with node.client() as client:
            assert client.mget("before", "after") == [b"1", None]
