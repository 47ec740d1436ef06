"""While a large log is read the server answers already: what needs data with LOADING, the rest as always.

A log of a million keys is made once and then loaded again and again; nothing is written to it after that.
"""

import signal
import tempfile

import pytest

import node as nodes
from wire import Connection, encode

KEYS = 1_000_000
PAIRS = 1_000
VALUE = b"v" * 32


@pytest.fixture(scope="module")
def large_log(base_directory):
    """A directory whose log takes a while to load, as kill -9 left it."""
    directory = tempfile.mkdtemp(dir=base_directory)
    node = nodes.Node(directory).start()
    with Connection(node.port, 120) as connection:
        for first in range(0, KEYS, PAIRS):
            pairs = [word for number in range(first, first + PAIRS) for word in (f"key:{number}", VALUE)]
            assert connection.command("MSET", *pairs) == b"+OK\r\n"
    node.kill()
    return directory


def connect_early(node: nodes.Node) -> Connection:
    """The first connection that the doors take, made before anybody knows whether the data is there."""

    def attempt():
        try:
            return Connection(node.port, 120)
        except ConnectionRefusedError:
            assert node.process.poll() is None, node.printed()
            return None

    return nodes.until(attempt, "the door to open")


def field(info: bytes, name: str) -> str | None:
    """The value of a field of INFO."""
    lines = (line.partition(":") for line in info.decode().splitlines())
    return next((value for found, _, value in lines if found == name), None)


def test_loading_is_told_and_the_same_connection_goes_on(make_node, large_log):
    node = make_node(directory=large_log).launch()
    seen = []
    with connect_early(node) as connection:
        assert connection.command("SELECT", "0") == b"+OK\r\n"
        identity = connection.command("CLIENT", "ID")

        def loaded():
            connection.socket.sendall(
                encode("PING") + encode("GET", "key:7") + encode("ECHO", "hi") + encode("INFO", "persistence")
            )
            ping, get, echo, info = (connection.reply() for _ in range(4))
            assert echo == b"$2\r\nhi\r\n"
            if ping == b"+PONG\r\n":
                assert (get, field(info, "loading")) == (b"$32\r\n%b\r\n" % VALUE, "0")
                return True
            assert ping.startswith(b"-LOADING ") and get == ping
            assert field(info, "loading") == "1"
            seen.append((int(field(info, "loading_loaded_bytes")), int(field(info, "loading_total_bytes"))))
            assert 0 <= float(field(info, "loading_loaded_perc")) <= 100
            assert field(info, "loading_eta_seconds") is not None
            return False

        nodes.until(loaded, "the data", 120)
        assert connection.command("DBSIZE") == b":%d\r\n" % KEYS
        assert connection.command("CLIENT", "ID") == identity
        assert connection.command("SET", "key:7", VALUE) == b"+OK\r\n"
    assert seen, "the log was loaded before the first request: make it larger"
    assert seen == sorted(seen) and seen[-1][0] > 0, seen


def test_a_client_library_sees_loading_as_what_it_is(make_node, large_log):
    node = make_node(directory=large_log).launch()
    connect_early(node).close()
    with node.client() as client:
        with pytest.raises(nodes.redis.BusyLoadingError):
            client.get("key:7")
        node.wait_until_ready()
        assert client.get("key:7") == VALUE


@pytest.mark.parametrize("how", ["SIGTERM", "SHUTDOWN"])
def test_the_end_may_be_asked_for_while_loading_and_costs_nothing(make_node, large_log, how):
    node = make_node(directory=large_log).launch()
    with connect_early(node) as connection:
        assert connection.command("GET", "key:7").startswith(b"-LOADING ")
        if how == "SIGTERM":
            node.send(signal.SIGTERM)
        else:
            connection.send("SHUTDOWN")
        assert node.wait() == 0
        with pytest.raises(ConnectionError):
            connection.reply()
    again = make_node(directory=large_log).start()
    with again.client() as client:
        assert client.dbsize() == KEYS


@pytest.mark.bowline
def test_the_text_protocol_tells_of_loading_too(make_node, large_log):
    text_port = nodes.free_port()
    node = make_node("--text-port", text_port, directory=large_log).launch()
    connect_early(node).close()
    with Connection(text_port, 120) as connection:
        lines = connection.socket.makefile("rb")
        connection.socket.sendall(b"GET key:7\n")
        assert lines.readline().startswith(b"ERROR LOADING ")
        node.wait_until_ready()
        connection.socket.sendall(b"GET key:7\n")
        assert lines.readline() == VALUE + b"\n"
