"""What a real process does when the disk fails, is slow, or is full.

Failures and delays of fdatasync are injected by strace into the running process; the full disk is a small file system
mounted for the test (skipped where mounting is not permitted).
"""

import contextlib
import os
import re
import select
import subprocess
from pathlib import Path

import pytest
import redis

import node as nodes
from file_system import FileSystem
from wire import Connection

STORAGE_FAILURE = 74

pytestmark = pytest.mark.bowline


@contextlib.contextmanager
def injected(node, rule: str, output=os.devnull, trace="fdatasync,fsync"):
    """Attaches strace to every thread of the server with one injection rule, until the block ends."""
    command = ["strace", "-f", "-s", "40", "-o", str(output), "-p", str(node.pid()), "-e", f"trace={trace}", "-e", f"inject={rule}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.kill()
            pytest.skip(f"strace may not attach here: {line.strip()}")
        try:
            yield tracer
        finally:
            tracer.terminate()
            tracer.wait(30)


def resident_bytes(node) -> int:
    """Resident memory of the server."""
    with open(f"/proc/{node.pid()}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def thread_of(node, name: str) -> str:
    """The id of the server's thread of this name."""
    tasks = Path(f"/proc/{node.pid()}/task").iterdir()
    return next(task.name for task in tasks if (task / "comm").read_text().strip() == name)


def readable(connection: Connection) -> bool:
    """Whether a reply (or the end) has arrived."""
    return bool(connection.buffer) or bool(select.select([connection.socket], [], [], 0)[0])


@pytest.mark.needs("strace")
class TestFailedSync:
    """A failed fdatasync ends the process: no OK afterwards, a named error, exit code 74, no second try."""

    @pytest.mark.parametrize("nth", [1, 2, 7])
    @pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
    def test_it_ends_the_process_without_a_later_ok(self, make_node, tmp_path, nth, error):
        node = make_node().start()
        trace = tmp_path / "trace"
        acknowledged = -1
        with Connection(node.port) as connection:
            assert connection.command("SET", "before", "v") == b"+OK\r\n"
            writer = thread_of(node, "log-writer")
            with injected(node, f"fdatasync:error={error}:when={nth}", trace, "fdatasync,fsync,write,writev,sendto,sendmsg"):
                with contextlib.suppress(ConnectionError, OSError):
                    for i in range(10_000):
                        answer = connection.command("SET", "k", i)
                        assert answer == b"+OK\r\n" or answer.startswith(b"-"), answer
                        if answer.startswith(b"-"):
                            break
                        acknowledged = i
                assert node.wait() == STORAGE_FAILURE
        lines = trace.read_text(errors="replace").splitlines()
        failed = next(i for i, line in enumerate(lines) if "(INJECTED)" in line)
        thread = lines[failed].split()[0]
        # Calls are counted for each thread. Where the thread that prepares files fails, the writer's last sync may have
        # made a commit durable whose one OK is on its way.
        allowed = 0 if thread == writer else 1
        later = [line for line in lines[failed:] if '"+OK' in line]
        assert len(later) <= allowed, f"an OK left after the failed sync: {later}"
        again = [line for line in lines[failed + 1:] if line.startswith(thread) and re.search(r"\bf(data)?sync\(", line)]
        assert not again, f"synced again after a failure: {again}"
        said = node.printed()
        assert error in said or os.strerror({"EIO": 5, "ENOSPC": 28}[error]) in said, said
        node.start()
        with node.client() as client:
            assert client.get("before") == b"v"
            found = client.get("k")
            assert acknowledged <= (-1 if found is None else int(found)) <= acknowledged + 1

    def test_an_embedded_failure_of_write_ends_it_too(self, make_node):
        node = make_node().start()
        acknowledged = -1
        with Connection(node.port) as connection:
            with injected(node, "pwrite64,pwritev,pwritev2:error=EIO:when=3", trace="pwrite64,pwritev,pwritev2"):
                with contextlib.suppress(ConnectionError, OSError):
                    for i in range(10_000):
                        if connection.command("SET", "k", i) != b"+OK\r\n":
                            break
                        acknowledged = i
                assert node.wait() == STORAGE_FAILURE
        node.start()
        with node.client() as client:
            found = client.get("k")
            assert acknowledged <= (-1 if found is None else int(found)) <= acknowledged + 1


@pytest.mark.needs("strace")
class TestSlowSync:
    """A slow disk delays the replies that depend on it, and nothing else."""

    def test_an_old_key_is_read_while_a_write_waits(self, make_node):
        node = make_node().start()
        with contextlib.ExitStack() as stack:
            writer, fresh, reader = (stack.enter_context(Connection(node.port)) for _ in range(3))
            assert writer.command("SET", "old", "v") == b"+OK\r\n"
            writer.command("CLIENT", "SETNAME", "writer")
            stack.enter_context(injected(node, "fdatasync:delay_enter=3000000"))
            writer.send("SET", "new", "w")
            with node.client() as watcher:
                nodes.until(
                    lambda: any(c["name"] == "writer" and c["cmd"].startswith("set") for c in watcher.client_list()),
                    "the server to have executed the SET",
                )
            fresh.send("GET", "new")
            for _ in range(100):
                assert reader.command("GET", "old") == b"$1\r\nv\r\n"
            assert not readable(writer), "the OK came before the sync could have ended"
            assert not readable(fresh), "a value was shown that a power cut could still take back"
            assert writer.reply() == b"+OK\r\n"
            assert fresh.reply() == b"$1\r\nw\r\n"

    def test_a_level_of_none_does_not_wait(self, make_node):
        node = make_node().start()
        with Connection(node.port) as strict, Connection(node.port) as loose:
            loose.command("BL.DURABILITY", "none")
            with injected(node, "fdatasync:delay_enter=3000000"):
                strict.send("SET", "a", "1")
                for i in range(100):
                    assert loose.command("SET", "b", i) == b"+OK\r\n"
                assert not readable(strict)
                assert strict.reply() == b"+OK\r\n"

    def test_replies_held_back_by_a_slow_disk_stay_bounded(self, make_node):
        """History 8: pipelined reads of one fresh big value, while its commit does not come."""
        node = make_node().start()
        requests, megabyte = 200, b"x" * (1 << 20)
        with Connection(node.port, 60) as connection, node.client() as watcher:
            before = resident_bytes(node)
            with injected(node, "fdatasync:delay_enter=2000000"):
                connection.send("SET", "big", megabyte)
                for _ in range(requests):
                    connection.send("GET", "big")
                peak = 0
                while not readable(connection):
                    peak = max(peak, resident_bytes(node) - before)
                assert peak < 100 << 20, f"{peak >> 20} MiB more: held replies grew without bound"
            assert connection.reply() == b"+OK\r\n"
            for _ in range(requests):
                assert connection.reply() == b"$%d\r\n%b\r\n" % (len(megabyte), megabyte), "held, not closed"
            assert watcher.ping()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_refuses_writes_keeps_reading_and_resumes(make_node, tmp_path, kind):
    place = tmp_path / "full"
    place.mkdir()
    with FileSystem(kind, place, 96):
        node = make_node("--wal_file_size", "4mb", "--wal_buffer_size", "1mb")
        node.data = place / "data"
        ballast = place / "ballast"
        ballast.write_bytes(b"b" * (40 << 20))
        node.start()
        written = {}
        with node.client(socket_timeout=60) as client:
            refusal = None
            for i in range(1000):
                value = bytes([i % 251]) * 100_000
                try:
                    client.set(f"k{i}", value)
                    written[f"k{i}"] = value
                except redis.ResponseError as error:
                    refusal = str(error)
                    break
            assert refusal is not None, "100 MB went into what was left of 96"
            assert refusal.startswith("MISCONF"), refusal
            assert re.search(r"full|space", refusal), refusal
            assert len(written) > 50
            assert client.get(f"k{len(written)}") is None, "a refused write took effect"
            for key, value in list(written.items())[-20:]:
                assert client.get(key) == value
            assert client.dbsize() == len(written)
            for key in list(written)[:10]:
                assert client.delete(key) == 1, "a removal must go on"
                del written[key]
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                client.set("still", b"x" * 100_000)
            assert client.exists("still") == 0
            ballast.unlink()

            def resumes():
                try:
                    return client.set("resumed", b"r" * 100_000)
                except redis.ResponseError as error:
                    assert str(error).startswith("MISCONF"), error
                    return False

            nodes.until(resumes, "writes to resume by themselves after space was freed")
            written["resumed"] = b"r" * 100_000
        node.kill()
        node.start()
        with node.client() as client:
            assert client.dbsize() == len(written)
            for key, value in written.items():
                assert client.get(key) == value
        node.kill()
