"""The process: start, ready, daemon, signals, lock, verification of the files, exit codes, restart."""

import os
import signal
import socket
import subprocess

import pytest
import redis

import node as nodes
from wire import Connection, encode

USAGE, LOCKED, DAMAGED = 2, 3, 4


def test_what_was_written_is_there_after_a_clean_restart(make_node):
    node = make_node().start()
    with node.client() as client:
        client.mset({f"k{i}": f"v{i}" for i in range(1000)})
        client.set("expiring", "v", ex=1000)
        client.set("gone", "v")
        client.delete("gone")
        client.incrby("n", 41)
        client.select(3)
        client.set("k", "third")
    assert node.terminate() == 0
    node.start()
    with node.client() as client:
        assert client.mget(f"k{i}" for i in range(1000)) == [f"v{i}".encode() for i in range(1000)]
        assert 0 < client.ttl("expiring") <= 1000
        assert client.get("gone") is None and client.incr("n") == 42 and client.dbsize() == 1002
    with node.client(db=3) as client:
        assert client.get("k") == b"third"


def test_flushes_and_swaps_survive_a_restart(make_node):
    node = make_node().start()
    with node.client(db=0) as zero, node.client(db=1) as one, node.client(db=2) as two:
        zero.set("k", "zero")
        one.set("k", "one")
        two.set("k", "two")
        zero.swapdb(0, 1)
        two.flushdb()
        two.set("after", "flush")
    node.kill()
    node.start()
    with node.client(db=0) as zero, node.client(db=1) as one, node.client(db=2) as two:
        assert (zero.get("k"), one.get("k"), two.get("k"), two.get("after")) == (b"one", b"zero", None, b"flush")
        zero.flushall()
    node.kill()
    node.start()
    with node.client(db=0) as zero, node.client(db=2) as two:
        assert zero.dbsize() == 0 and two.dbsize() == 0


def test_sigterm_and_sigint_end_with_code_zero(make_node):
    for number in (signal.SIGTERM, signal.SIGINT):
        node = make_node().start()
        with node.client() as client:
            client.set("k", "v")
            node.send(number)
            assert node.wait() == 0


@pytest.mark.bowline
@pytest.mark.needs("strace")
def test_a_write_in_flight_is_answered_before_sigterm_ends_the_process(make_node):
    node = make_node(wrapper=["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync",
                              "-e", "inject=fdatasync:delay_enter=300000"]).start()
    with Connection(node.port) as writer, node.client() as watcher:
        writer.command("CLIENT", "SETNAME", "writer")
        writer.send("SET", "k", "v")
        nodes.until(
            lambda: any(c["name"] == "writer" and c["cmd"].startswith("set") for c in watcher.client_list()),
            "the server to have read the SET",
        )
        node.send(signal.SIGTERM)
        assert writer.reply() == b"+OK\r\n"
        with pytest.raises(ConnectionError):
            writer.reply()
    assert node.wait() == 0
    node.wrapper = []
    node.start()
    with node.client() as client:
        assert client.get("k") == b"v"


def test_shutdown_ends_the_process(make_node):
    node = make_node().start()
    with Connection(node.port) as connection:
        assert connection.command("SET", "k", "v") == b"+OK\r\n"
        connection.send("SHUTDOWN")
        with pytest.raises(ConnectionError):
            connection.reply()
    assert node.wait() == 0
    node.start()
    with node.client() as client:
        assert client.get("k") == b"v"


def test_daemonize_returns_when_it_serves_and_leaves_a_pid_file(make_node):
    node = make_node()
    pid_file, log_file = node.directory / "kv.pid", node.directory / "kv.log"
    node.arguments += ["--daemonize", "yes", "--pidfile", pid_file, "--logfile", log_file]
    node.arguments = [str(argument) for argument in node.arguments]
    node.data.mkdir()
    done = subprocess.run(node.command_line(), cwd=node.directory, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if nodes.STAND_IN:
        node.wait_until_ready()
    pid = int(pid_file.read_text())
    try:
        with node.client() as client:
            assert client.info("server")["process_id"] == pid
            assert client.set("k", "v")
        with open(f"/proc/{pid}/stat", encoding="ascii") as status:
            session = int(status.read().rpartition(")")[2].split()[3])
        assert session != os.getsid(0), "the daemon is still in our session"
        assert log_file.stat().st_size > 0
    finally:
        os.kill(pid, signal.SIGTERM)
        nodes.until(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon to end")
    assert not pid_file.exists()


@pytest.mark.bowline
def test_a_daemon_that_cannot_start_says_so_to_its_caller(make_node):
    running = make_node().start()
    second = make_node("--daemonize", "yes", directory=running.directory)
    done = subprocess.run(second.command_line(), cwd=second.directory, capture_output=True, timeout=60, check=False)
    assert done.returncode == LOCKED
    assert str(running.pid()) in (done.stderr + done.stdout).decode()


@pytest.mark.bowline
def test_a_directory_in_use_is_refused_and_the_owner_is_named(make_node):
    first = make_node().start()
    second = make_node(directory=first.directory).launch()
    assert second.wait() == LOCKED
    said = second.printed()
    assert str(first.pid()) in said and str(first.data) in said
    with first.client() as client:
        assert client.set("k", "v")


@pytest.mark.bowline
def test_a_lock_left_by_a_killed_process_does_not_hinder(make_node):
    node = make_node().start()
    node.kill()
    node.start()
    with node.client() as client:
        assert client.ping()


@pytest.mark.bowline
class TestCheck:
    """`kv_server --check DIR` reads the files, changes nothing, says what it finds."""

    @staticmethod
    def check(node) -> subprocess.CompletedProcess:
        return subprocess.run([nodes.KV_SERVER, "--check", str(node.data)], capture_output=True, timeout=120, check=False)

    @staticmethod
    def contents(node) -> dict:
        return {str(path): path.read_bytes() for path in node.data.rglob("*") if path.is_file()}

    @pytest.fixture
    def filled(self, make_node):
        """A directory with 2000 keys, written in many frames; the process is gone."""
        node = make_node().start()
        with node.client() as client:
            for i in range(2000):
                client.set(f"key:{i}", f"value:{i}")
        assert node.terminate() == 0
        return node

    @pytest.fixture
    def killed(self, make_node):
        """The same, all of it in the log only."""
        node = make_node().start()
        with node.client() as client:
            for i in range(2000):
                client.set(f"key:{i}", f"value:{i}")
        node.kill()
        return node

    @staticmethod
    def flip_a_bit_of_the_value(node, value: bytes):
        """Damages the middle of the log: the only copy of one early value."""
        for path in nodes.log_files(node):
            content = bytearray(path.read_bytes())
            at = content.find(value)
            if at >= 0:
                content[at] ^= 0x10
                path.write_bytes(content)
                return path
        raise AssertionError(f"{value} is in no log file")

    def test_a_good_directory_is_found_good_and_left_alone(self, filled):
        before = self.contents(filled)
        done = self.check(filled)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.contents(filled) == before

    def test_damage_in_the_middle_is_found_named_and_refused(self, killed):
        damaged = self.flip_a_bit_of_the_value(killed, b"value:777")
        before = self.contents(killed)
        done = self.check(killed)
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == DAMAGED, said
        assert str(damaged) in said
        assert self.contents(killed) == before
        killed.launch()
        assert killed.wait() == DAMAGED
        assert damaged.name in killed.printed()
        assert self.contents(killed).keys() == before.keys()

    def test_damage_of_what_a_checkpoint_has_is_found_and_stops_no_start(self, filled):
        damaged = self.flip_a_bit_of_the_value(filled, b"value:777")
        done = self.check(filled)
        assert done.returncode == DAMAGED and str(damaged) in (done.stdout + done.stderr).decode()
        filled.start()
        with filled.client() as client:
            assert client.get("key:777") == b"value:777" and client.dbsize() == 2000

    def test_a_directory_in_use_can_be_checked_or_is_refused_by_name(self, make_node):
        node = make_node().start()
        done = self.check(node)
        assert done.returncode in (0, LOCKED)
        if done.returncode == LOCKED:
            assert str(node.pid()) in (done.stdout + done.stderr).decode()

    def test_a_directory_that_is_not_there_is_an_error(self, tmp_path):
        done = subprocess.run([nodes.KV_SERVER, "--check", str(tmp_path / "none")], capture_output=True, timeout=60,
                              check=False)
        assert done.returncode not in (0, DAMAGED)
        assert b"none" in done.stdout + done.stderr
        assert not (tmp_path / "none").exists()


@pytest.mark.bowline
def test_systemd_is_told_when_it_is_ready_and_when_it_stops(make_node):
    node = make_node("--supervised", "systemd")
    path = str(node.directory / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(30)
        node.environment["NOTIFY_SOCKET"] = path
        node.launch()
        said = b""
        while b"READY=1" not in said:
            said += notify.recv(4096) + b"\n"
        with node.client() as client:
            assert client.ping(), "READY=1 came before it served"
        node.send(signal.SIGTERM)
        while b"STOPPING=1" not in said:
            said += notify.recv(4096) + b"\n"
    assert node.wait() == 0


@pytest.mark.bowline
def test_help_and_version_need_no_server():
    for flag, expected in (("--help", b"--port"), ("--version", b"0.")):
        done = subprocess.run([nodes.KV_SERVER, flag], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0 and expected in done.stdout


@pytest.mark.bowline
def test_a_port_in_use_is_a_start_up_error_that_names_it(make_node):
    first = make_node().start()
    second = make_node(port=first.port).launch()
    assert second.wait() == 1
    assert str(first.port) in second.printed()


@pytest.mark.bowline
def test_many_files_are_written_and_replayed(make_node):
    """More data than one log file holds, so that files are prepared, filled and replayed in order."""
    node = make_node("--wal_file_size", "1mb", "--wal_buffer_size", "512kb").start()
    with node.client() as client:
        for i in range(400):
            client.set(f"k{i % 100}", bytes([i % 251]) * 50_000)
        assert len(nodes.log_files(node)) > 5
    node.kill()
    node.start()
    with node.client() as client:
        for i in range(300, 400):
            assert client.get(f"k{i % 100}") == bytes([i % 251]) * 50_000
        client.flushall()
        nodes.until(lambda: len(nodes.log_files(node)) < 8, "the files before a FLUSHALL to be recycled or removed")


@pytest.mark.bowline
def test_connections_opened_during_a_restart_are_served_or_told_loading(make_node):
    node = make_node().start()
    with node.client() as client:
        for start in range(0, 200_000, 10_000):
            client.mset({f"k{i}": "v" * 50 for i in range(start, start + 10_000)})
    node.kill()
    node.launch()
    answers = set()
    while True:
        try:
            with Connection(node.port) as connection:
                answer = connection.command("GET", "k1")
        except (OSError, redis.ConnectionError):
            assert node.process.poll() is None, node.printed()
            continue
        answers.add(answer[:8])
        if answer.startswith(b"$"):
            assert answer == b"$50\r\n" + b"v" * 50 + b"\r\n", "an answer before everything was loaded"
            break
        assert answer.startswith(b"-LOADING "), answer
    with node.client() as client:
        assert client.dbsize() == 200_000


def test_a_request_sent_in_one_packet_with_its_end_is_durable(make_node):
    """Acknowledged, then killed at once: the smallest form of the promise."""
    node = make_node().start()
    for i in range(20):
        with node.connect() as connection:
            connection.sendall(encode("SET", "k", i))
            assert connection.recv(5) == b"+OK\r\n"
            node.kill()
        node.start()
        with node.client() as client:
            assert client.get("k") == str(i).encode()
