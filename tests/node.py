"""One server process under test: its own port, its own directory, stopped by its own process id.

The binaries come from KV_SERVER and KV_CLIENT (default: the release build of this repository). KV_SERVER may also be
Debian's redis-server: tests of behaviour that both share then show that the *tests* are right.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
KV_SERVER = os.environ.get("KV_SERVER", str(RELEASE / "kv_server"))
KV_CLIENT = os.environ.get("KV_CLIENT", str(RELEASE / "kv_client"))
STAND_IN = "redis-server" in os.path.basename(KV_SERVER)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody has now.

    The system never takes it for an outgoing connection: one of those could have it when a server is started again.
    """
    outgoing_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, outgoing_from) if outgoing_from > 20_000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]


def until(condition, what: str, timeout_s: float = 30.0):
    """Waits for `condition()` to be true and returns its value. Polling is all that an outside test can do."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"gave up after {timeout_s} s waiting for: {what}")
        time.sleep(0.01)


class Node:
    """A server on a directory. `wrapper` is put before its command line (strace, taskset)."""

    def __init__(self, directory, *arguments, wrapper=(), port=None, environment=None, files=()):
        self.directory = Path(directory)
        self.port = port or free_port()
        self.data = self.directory / "data"
        self.output = self.directory / "output.log"
        self.arguments = [str(argument) for argument in arguments]
        self.files = [str(file) for file in files]
        self.wrapper = [str(word) for word in wrapper]
        self.environment = environment or {}
        self.process = None

    def command_line(self) -> list[str]:
        """What is executed, without the wrapper."""
        line = [KV_SERVER, *self.files, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data)]
        if STAND_IN:
            line += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        return line + self.arguments

    def launch(self):
        """Starts the process and does not wait for it to be ready."""
        if STAND_IN:
            self.data.mkdir(parents=True, exist_ok=True)
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                [*self.wrapper, *self.command_line()],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **self.environment}, start_new_session=True,
            )
        return self

    def start(self):
        """Starts the process and waits until it answers PING (NOAUTH is an answer too)."""
        self.launch()
        self.wait_until_ready()
        return self

    def wait_until_ready(self):
        """Waits for an answer to PING; a process that ends first is reported with what it printed."""
        until(self._answers, f"an answer to PING on port {self.port}; it printed:\n{self.printed()}", START_TIMEOUT_S)

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the server ended with code {self.process.returncode}:\n{self.printed()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                # Strangers are told NOAUTH before LOADING, so whoever knows the password gives it.
                if "--requirepass" in self.arguments:
                    password = self.arguments[self.arguments.index("--requirepass") + 1]
                    connection.sendall(f'AUTH "{password}"\r\n'.encode())
                    connection.recv(64)
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
                return answer.startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def printed(self) -> str:
        """The end of what the process wrote to stdout and stderr."""
        return self.output.read_text(errors="replace")[-4000:] if self.output.exists() else ""

    def client(self, **options) -> redis.Redis:
        """A redis-py client that never retries, so that a test sees what really happened."""
        options.setdefault("protocol", 2)
        options.setdefault("socket_timeout", 30)
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        return redis.Redis("127.0.0.1", self.port, retry=retry, **options)

    def connect(self, timeout_s: float = 30.0) -> socket.socket:
        """A plain TCP connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def pid(self) -> int:
        """The server's own process id, also when it runs under a wrapper."""
        if not self.wrapper:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, f"expected one child under {self.wrapper[0]}, found {children}"
        return int(children[0])

    def send(self, number: int):
        """Sends a signal to the server."""
        os.kill(self.pid(), number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for the process to end and returns its exit code (negative: the signal that killed it)."""
        return self.process.wait(timeout_s)

    def kill(self):
        """kill -9, as a machine that loses this process would have it."""
        if self.process is not None and self.process.poll() is None:
            try:
                os.kill(self.pid(), signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError, AssertionError):
                self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


def kv_client(*words, port=None, stdin=b"", environment=None, timeout_s=60.0) -> subprocess.CompletedProcess:
    """Runs the one-shot client and returns what it did; bytes in, bytes out."""
    settings = {**os.environ, **(environment or {})}
    if port is not None:
        settings["KV_PORT"] = str(port)
    return subprocess.run(
        [KV_CLIENT, *words], input=stdin, capture_output=True, env=settings, timeout=timeout_s, check=False
    )


def tool(name: str) -> str | None:
    """Where a program of the system is, also those that only root has in its path."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def log_files(node: Node) -> list[Path]:
    """The files of the write-ahead log, oldest name first."""
    return sorted(path for path in node.data.rglob("*.log") if re.fullmatch(r"\d+\.log", path.name))
