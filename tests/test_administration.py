"""What operators use: CLIENT, INFO, SLOWLOG, LATENCY, DEBUG, protected mode, idle time-outs."""

import re
import socket
import subprocess

import pytest

import node as nodes
from wire import Connection, parse


def test_client_reply_off_and_skip_silence_a_connection(server):
    with Connection(server.port) as connection:
        connection.send("CLIENT", "REPLY", "SKIP")
        connection.send("SET", "a", "1")
        assert connection.command("GET", "a") == b"$1\r\n1\r\n"
        connection.send("CLIENT", "REPLY", "OFF")
        connection.send("SET", "a", "2")
        connection.send("GET", "a")
        assert connection.command("CLIENT", "REPLY", "ON") == b"+OK\r\n"
        assert connection.command("GET", "a") == b"$1\r\n2\r\n"


def test_client_kill_closes_the_connection_named(server):
    with Connection(server.port) as victim, Connection(server.port) as killer:
        number = parse(victim.command("CLIENT", "ID"))
        assert killer.command("CLIENT", "KILL", "ID", number) == b":1\r\n"
        with pytest.raises((ConnectionError, OSError)):
            victim.command("PING")
            victim.command("PING")
        assert killer.command("CLIENT", "KILL", "ID", number) == b":0\r\n"
        assert killer.command("PING") == b"+PONG\r\n"


def test_client_pause_holds_back_writes_and_lets_reads_pass(server):
    with Connection(server.port) as writer, Connection(server.port) as reader:
        assert writer.command("SET", "k", "before") == b"+OK\r\n"
        assert reader.command("CLIENT", "PAUSE", "60000", "WRITE") == b"+OK\r\n"
        writer.send("SET", "k", "after")
        for _ in range(50):
            assert reader.command("GET", "k") == b"$6\r\nbefore\r\n"
        assert reader.command("CLIENT", "UNPAUSE") == b"+OK\r\n"
        assert writer.reply() == b"+OK\r\n"
        assert reader.command("GET", "k") == b"$5\r\nafter\r\n"


def test_an_idle_connection_is_closed_after_the_time_out(make_node):
    node = make_node("--timeout", 1).start()
    with Connection(node.port) as idle:
        assert idle.command("PING") == b"+PONG\r\n"
        with pytest.raises(ConnectionError):
            idle.reply()


def test_info_has_redis_sections_and_every_line_is_a_field(server):
    with Connection(server.port) as connection:
        text = parse(connection.command("INFO")).decode()
        sections = set(re.findall(r"^# (\w+)\r$", text, re.M))
        assert sections >= {"Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Keyspace"}
        for line in text.split("\r\n"):
            assert line == "" or line.startswith("# ") or re.fullmatch(r"[\w.|-]+:.*", line), line
        one = parse(connection.command("INFO", "memory")).decode()
        assert set(re.findall(r"^# (\w+)\r$", one, re.M)) == {"Memory"}
        connection.command("SET", "k", "v")
        connection.command("GET", "k")
        assert "cmdstat_get:calls=" in parse(connection.command("INFO", "commandstats")).decode()
        connection.command("CONFIG", "RESETSTAT")
        assert "cmdstat_get:calls=" not in parse(connection.command("INFO", "commandstats")).decode()


@pytest.mark.bowline
def test_info_tells_the_size_of_the_log_and_what_a_commit_takes(server):
    with server.client() as client:
        client.set("k", "v")
        info = client.info("everything")
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", str(info["bowline_version"]))
        persistence = client.info("persistence")
        assert any("log" in name and isinstance(value, int) and value > 0 for name, value in persistence.items()), persistence
        assert any("sync" in name for name in persistence), persistence


def test_the_slow_log_keeps_what_took_long(make_node):
    node = make_node("--slowlog-log-slower-than", 1000, "--enable-debug-command", "yes").start()
    with node.client() as client:
        client.slowlog_reset()
        client.execute_command("DEBUG", "SLEEP", "0.02")
        entries = client.slowlog_get()
        assert any(b"DEBUG" in entry["command"].upper() and entry["duration"] >= 20_000 for entry in entries), entries
        assert client.slowlog_len() >= 1
        client.slowlog_reset()
        assert client.slowlog_len() == 0


def test_latency_histograms_count_calls(server):
    with server.client() as client:
        for i in range(10):
            client.set("k", i)
        reply = client.execute_command("LATENCY HISTOGRAM", "set")
        assert b"set" in (reply if isinstance(reply, (dict, list)) else [reply])


def test_debug_is_refused_unless_allowed(make_node):
    node = make_node().start()
    with Connection(node.port) as connection:
        assert connection.command("DEBUG", "SLEEP", "0").startswith(b"-ERR DEBUG command not allowed")


def own_address() -> str | None:
    """An IPv4 address of this machine that is not loopback."""
    said = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    return next((word for word in said if "." in word and not word.startswith("127.")), None)


@pytest.mark.skipif(own_address() is None, reason="this machine has no address besides loopback")
def test_without_a_password_other_machines_are_refused(make_node):
    node = make_node("--protected-mode", "yes")
    address = own_address()
    line = node.command_line()
    node.command_line = lambda: [f"{address} 127.0.0.1" if word == "127.0.0.1" else word for word in line]
    if nodes.STAND_IN:
        node.command_line = lambda: [part for word in line for part in ([address, word] if word == "127.0.0.1" else [word])]
    node.start()
    with socket.create_connection((address, node.port), timeout=30) as outsider:
        outsider.sendall(b"PING\r\n")
        assert outsider.recv(1000).startswith(b"-DENIED ")
    with node.client() as client:
        assert client.ping()
        client.config_set("requirepass", "secret")
    with socket.create_connection((address, node.port), timeout=30) as outsider:
        outsider.sendall(b"AUTH secret\r\n")
        assert outsider.recv(1000) == b"+OK\r\n"


def test_clients_that_leave_in_a_pause_are_not_listed_until_its_end(server):
    def others(admin) -> int:
        return parse(admin.command("CLIENT", "LIST")).count(b"\n") - 1

    with Connection(server.port) as admin, Connection(server.port) as stays:
        nodes.until(lambda: others(admin) == 1, "the clients of earlier tests to be gone")
        assert admin.command("CLIENT", "PAUSE", "60000", "WRITE") == b"+OK\r\n"
        stays.send("SET", "k", "stays")
        leaving = [Connection(server.port) for _ in range(20)]
        for connection in leaving:
            connection.send("SET", "k", "left")
        nodes.until(lambda: others(admin) == 21, "all of them to be held")
        for connection in leaving:
            connection.close()
        nodes.until(lambda: others(admin) == 1, "those that left to be forgotten")
        with Connection(server.port) as late:
            late.send("SET", "k", "late")
            assert admin.command("CLIENT", "UNPAUSE") == b"+OK\r\n"
            assert late.reply() == stays.reply() == b"+OK\r\n"


def test_latency_events_are_kept_from_the_threshold_on(make_node):
    arguments = ["--enable-debug-command", "yes"]
    with make_node(*arguments).start().client() as client:
        client.execute_command("DEBUG", "SLEEP", "0.05")
        assert client.execute_command("LATENCY LATEST") == [], "nothing is watched unless a threshold is set"
        client.config_set("latency-monitor-threshold", 20)
        client.execute_command("DEBUG", "SLEEP", "0.05")
        (event, _, newest, longest), = [e for e in client.execute_command("LATENCY LATEST") if e[0] == b"command"]
        assert event == b"command" and 50 <= newest <= longest
        assert client.execute_command("LATENCY HISTORY", "command")[-1][1] == newest
        assert client.execute_command("LATENCY HISTORY", "no-such-event") == []
        assert client.execute_command("LATENCY RESET", "no-such-event") == 0
        assert client.execute_command("LATENCY RESET", "command") == 1
        assert client.execute_command("LATENCY HISTORY", "command") == []
