"""The servers under measurement: started on a directory of their own, pinned to CPUs, stopped by their process id."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
READY_TIMEOUT_S = 300.0
SAVE_TIMEOUT_S = 300.0


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server process. `cpus` is a list for taskset ("0", "0,1") or None for no pinning."""

    name = "server"

    def __init__(self, base: Path, cpus: str | None, *arguments: str):
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=base))
        self.port = free_port()
        self.cpus = cpus
        self.arguments = arguments
        self.process: subprocess.Popen | None = None

    def command_line(self) -> list[str]:
        """The server's own command line."""
        raise NotImplementedError

    def start(self) -> float:
        """Starts it and returns the seconds until it answered PING."""
        return self.start_until(b"PING\r\n", b"+PONG\r\n")

    def start_until(self, request: bytes, wanted: bytes) -> float:
        """Starts it and returns the seconds until it answered `request` with `wanted`, asked every half millisecond."""
        pin = ["taskset", "-c", self.cpus] if self.cpus else []
        begun = time.monotonic()
        with open(self.directory / "output.log", "ab") as output:
            self.process = subprocess.Popen([*pin, *self.command_line()], cwd=self.directory, stdout=output, stderr=output)
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {(self.directory / 'output.log').read_text(errors='replace')[-2000:]}")
            try:
                if (found := self.ask(request)) == wanted:
                    return time.monotonic() - begun
                assert found.startswith((b"-LOADING", b"-BUSY")) or not found, f"{found!r} instead of {wanted!r}"
            except OSError:
                pass
            if time.monotonic() - begun > READY_TIMEOUT_S:
                raise RuntimeError(f"{self.name} did not answer {request!r} for {READY_TIMEOUT_S} s")
            time.sleep(0.0005)

    def ask(self, request: bytes) -> bytes:
        """One inline request, the first bytes of its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=READY_TIMEOUT_S) as connection:
            connection.sendall(request)
            return connection.recv(1 << 16)

    def figure(self, name: str) -> int:
        """A number of INFO persistence."""
        told = self.ask(b"INFO persistence\r\n").decode()
        return int(next(line.split(":")[1] for line in told.splitlines() if line.startswith(f"{name}:")))

    def cpu_seconds(self) -> float:
        """User and system time of the whole process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def kill(self):
        """Ends it at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end_with(self, how: str):
        """Ends it by SHUTDOWN SAVE or NOSAVE."""
        self.ask(b"SHUTDOWN %s\r\n" % how.encode())
        self.process.wait(READY_TIMEOUT_S)

    def saves(self) -> int:
        """How many snapshots were begun; Bowline counts those that have ended."""
        return self.figure("rdb_saves")

    def begin_save(self):
        """BGSAVE, which must be taken: not while another one runs."""
        answer = self.ask(b"BGSAVE\r\n")
        if not answer.startswith(b"+Background saving started"):
            raise RuntimeError(f"{self.name} answered BGSAVE with {answer[:200]!r}")

    def wait_for_save(self, saves: int):
        """Until the snapshot that was begun when `saves` were counted has ended."""
        begun = time.monotonic()
        while self.saves() == saves or self.figure("rdb_bgsave_in_progress"):
            if "rdb_last_bgsave_status:err" in self.ask(b"INFO persistence\r\n").decode():
                raise RuntimeError(f"{self.name} failed to save")
            if time.monotonic() - begun > SAVE_TIMEOUT_S:
                raise RuntimeError(f"{self.name} has not saved after {SAVE_TIMEOUT_S} s")
            time.sleep(0.05)

    @contextmanager
    def watched_memory(self):
        """Looks at the resident memory, children included, until the block ends; `most_bytes` is the most there was."""
        seen, end = SimpleNamespace(most_bytes=0), threading.Event()

        def look():
            while not end.wait(0.02):
                seen.most_bytes = max(seen.most_bytes, self.resident_bytes() + self.copied_by_children())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield seen
        finally:
            end.set()
            watcher.join()

    def copied_by_children(self) -> int:
        """Bytes of memory that forked children have for themselves."""
        copied = 0
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
            except OSError:
                continue
            copied += 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty"))
        return copied

    def remove(self):
        """Ends it and deletes its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Bowline(Server):
    """kv_server; its default: every write acknowledged after fdatasync."""

    name = "bowline"

    def __init__(self, base: Path, cpus: str | None = "0", threads: int = 1, durability: str = "always", checkpoints: bool = True,
                 more: list[str] | None = None):
        by_hand = [] if checkpoints else ["--checkpoint-interval", "0", "--checkpoint-log-size", "1000gb"]
        super().__init__(base, cpus, "--threads", str(threads), "--durability", durability, *by_hand, *(more or []))

    def command_line(self) -> list[str]:
        binary = os.environ.get("KV_SERVER", str(ROOT / "target/release/kv_server"))
        return [str(Path(binary).resolve()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
                str(self.directory / "data"), *self.arguments]


class Redis(Server):
    """Debian's redis-server; `appendfsync` None means no persistence at all. `rewrites`: the append-only file is rewritten
    when it has doubled, as by default."""

    name = "redis"

    def __init__(self, base: Path, cpus: str | None = "0", appendfsync: str | None = None, rewrites: bool = False):
        persistence = ["--appendonly", "no"] if appendfsync is None else [
            "--appendonly", "yes", "--appendfsync", appendfsync, "--auto-aof-rewrite-percentage", "100" if rewrites else "0"]
        super().__init__(base, cpus, *persistence)

    def command_line(self) -> list[str]:
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir",
                str(self.directory), *self.arguments]


def version_of_redis() -> str:
    """The version that the comparison is made against."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return next(word.removeprefix("v=") for word in said.split() if word.startswith("v="))
