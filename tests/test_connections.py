"""Connections: many, slow, hostile, unauthenticated, over TCP and UNIX sockets."""

import os
import random
import re
import resource
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

import node as nodes
from wire import Connection, encode, parse


def closed_by_server(connection: socket.socket) -> bytes:
    """Reads until the server ends the connection; returns what it said last."""
    said = bytearray()
    while True:
        try:
            received = connection.recv(1 << 16)
        except ConnectionResetError:
            return bytes(said)
        if not received:
            return bytes(said)
        said += received


def resident_bytes(node) -> int:
    with open(f"/proc/{node.pid()}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_connections_are_served_at_once(server):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    connections = [Connection(server.port) for _ in range(1000)]
    try:
        for i, connection in enumerate(connections):
            connection.send("SET", f"c{i}", i)
        assert [connection.reply() for connection in connections] == [b"+OK\r\n"] * 1000
        for i, connection in enumerate(connections):
            connection.send("GET", f"c{999 - i}")
        assert [connection.reply() for connection in connections] == [
            b"$%d\r\n%d\r\n" % (len(str(999 - i)), 999 - i) for i in range(1000)
        ]
    finally:
        for connection in connections:
            connection.close()


def test_one_connection_too_many_is_told_so(make_node):
    node = make_node("--maxclients", 20).start()
    kept = []
    for _ in range(20):
        connection = Connection(node.port)
        assert connection.command("PING") == b"+PONG\r\n"
        kept.append(connection)
    refused = node.connect()
    assert closed_by_server(refused) == b"-ERR max number of clients reached\r\n"
    kept.pop().close()
    nodes.until(lambda: nodes.Node._answers(node), "a place that became free")


@pytest.mark.bowline
def test_the_number_of_clients_shown_is_the_one_that_is_accepted(make_node):
    """A limit of open files that cannot be raised so far lowers what INFO and CONFIG GET say, and a warning tells."""
    wanted = 2**32 - 1
    node = make_node("--maxclients", wanted).start()
    limits = Path(f"/proc/{node.pid()}/limits").read_text()
    open_files = int(re.search(r"Max open files +(\d+)", limits).group(1))
    with node.client() as client:
        accepted = client.info("clients")["maxclients"]
        assert accepted == open_files - 64 < wanted
        assert client.config_get("max*")["maxclients"] == str(accepted) == client.config_get("max_c*")["max_connections"]
        client.config_set("maxclients", 50)
        assert client.config_get("maxclients") == {"maxclients": "50"}
    assert f"connections beyond {accepted} are refused" in node.printed()


def test_pipelines_that_read_what_others_write_are_all_answered(server):
    """Replies are held for commits of other connections: whatever moment a commit comes at, none may be forgotten."""

    def work(number: int):
        rng = random.Random(number)
        with Connection(server.port) as connection:
            for turn in range(1500):
                keys = [f"hot:{rng.randrange(20)}" for _ in range(4)]
                connection.socket.sendall(b"".join(
                    encode("SET", key, turn) if rng.random() < 0.2 else encode("GET", key) for key in keys
                ))
                for _ in keys:
                    connection.reply()
            return number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(work, range(6))) == list(range(6))


def test_a_client_that_never_reads_is_closed_and_others_go_on(make_node):
    node = make_node("--client-output-buffer-limit", "normal 8mb 0 0").start()
    with node.client() as client:
        client.set("big", b"x" * (1 << 20))
        before = resident_bytes(node)
        lazy = node.connect()
        lazy.settimeout(30)
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = encode("GET", "big")
        sent = 0
        try:
            for _ in range(400):
                lazy.sendall(request)
                sent += 1
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        assert sent, "nothing was sent"
        nodes.until(lambda: client.info("clients")["connected_clients"] == 1, "the lazy connection to be closed")
        assert client.get("big") == b"x" * (1 << 20)
        assert resident_bytes(node) - before < 200 << 20, "replies nobody reads grew without bound"
        lazy.close()


def test_the_client_with_the_most_is_closed_when_all_together_hold_too_much(make_node):
    """The sum over all clients is bounded by maxmemory-clients, as in Redis."""
    node = make_node("--maxmemory-clients", "64mb").start()
    value = b"v" * (1 << 20)
    with Connection(node.port) as admin:
        assert admin.command("SET", "k", value) == b"+OK\r\n"
        modest = [Connection(node.port) for _ in range(4)]
        for connection in modest:
            # More than the kernel's buffers take, so that the server keeps a part.
            for _ in range(12):
                connection.send("GET", "k")
        hog = Connection(node.port)
        for _ in range(150):
            hog.send("GET", "k")
        nodes.until(lambda: b"evicted_clients:1\r\n" in admin.command("INFO", "stats"), "the hog to be closed")
        received = 0
        try:
            while part := hog.socket.recv(1 << 20):
                received += len(part)
        except ConnectionResetError:
            pass
        assert received < 150 << 20
        for connection in modest:
            for _ in range(12):
                assert parse(connection.reply()) == value
        assert b"evicted_clients:1\r\n" in admin.command("INFO", "stats")


def test_a_client_that_reads_gets_all_it_asked_for_however_much_that_is(server):
    megabyte = b"y" * (1 << 20)
    with Connection(server.port, 60) as connection:
        assert connection.command("SET", "big", megabyte) == b"+OK\r\n"
        connection.socket.sendall(encode("GET", "big") * 600)
        for _ in range(600):
            assert connection.reply() == b"$%d\r\n%b\r\n" % (len(megabyte), megabyte)


@pytest.mark.parametrize(
    "garbage, says",
    [
        (b"*1\r\nGET\r\n", b"-ERR Protocol error: expected '$', got 'G'\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$99999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*99999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b'SET a "unclosed\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"x" * (70 << 10), b"-ERR Protocol error: too big inline request\r\n"),
    ],
)
def test_bytes_that_are_no_request_get_an_error_and_the_end(server, garbage, says):
    with server.connect() as connection:
        try:
            connection.sendall(garbage)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert closed_by_server(connection) == says
    with server.client() as client:
        assert client.ping()


def test_a_promised_length_allocates_nothing(server):
    before = resident_bytes(server)
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        connection.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870000\r\nonly this much")
    with server.client() as client:
        assert client.ping()
        assert resident_bytes(server) - before < 64 << 20
        assert client.exists("k") == 0
    for connection in connections:
        connection.close()


def test_replies_queued_before_a_protocol_error_still_arrive(server):
    with server.connect() as connection:
        connection.sendall(encode("SET", "k", "v") + encode("GET", "k") + b"*1\r\n!boom\r\n")
        said = closed_by_server(connection)
    assert said.startswith(b"+OK\r\n$1\r\nv\r\n-ERR Protocol error")


def test_a_request_cut_into_single_bytes_is_understood(server):
    with server.connect() as connection:
        for byte in encode("SET", "slow", "value") + b"GET slow\r\n":
            connection.sendall(bytes([byte]))
        answer = b""
        while len(answer) < 16:
            answer += connection.recv(100)
    assert answer == b"+OK\r\n$5\r\nvalue\r\n"


def test_inline_commands_know_quotes(server):
    with server.connect() as connection:
        connection.sendall(b'SET "a key" "x\\x00\\n\\"y"\r\n\r\nGET \'a key\'\nQUIT\r\n')
        assert closed_by_server(connection) == b'+OK\r\n$5\r\nx\x00\n"y\r\n+OK\r\n'


def test_a_half_closed_connection_still_gets_its_answers(server):
    with server.connect() as connection:
        connection.sendall(b"".join(encode("SET", f"h{i}", "v") for i in range(1000)))
        connection.shutdown(socket.SHUT_WR)
        said = closed_by_server(connection)
    # Redis drops what it has not yet executed when it sees the end; what is answered must be whole and in order.
    assert said == b"+OK\r\n" * (len(said) // 5)
    if not nodes.STAND_IN:
        assert len(said) == 5000


def test_http_on_the_port_ends_at_once(server):
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET hacked 1\r\n")
        said = closed_by_server(connection)
    assert b"+OK" not in said
    with server.client() as client:
        assert client.exists("hacked") == 0


class TestPassword:
    """A server with requirepass."""

    @pytest.fixture
    def guarded(self, make_node):
        return make_node("--requirepass", "open sesame").start()

    def test_nothing_runs_before_auth(self, guarded):
        with Connection(guarded.port) as connection:
            for command in (("GET", "k"), ("SET", "k", "v"), ("INFO",), ("CONFIG", "GET", "*"), ("MULTI",), ("SHUTDOWN",)):
                assert connection.command(*command) == b"-NOAUTH Authentication required.\r\n"
            assert connection.command("AUTH", "wrong").startswith(b"-WRONGPASS ")
            assert connection.command("GET", "k").startswith(b"-NOAUTH")
            assert connection.command("AUTH", "open sesame") == b"+OK\r\n"
            assert connection.command("SET", "k", "v") == b"+OK\r\n"
            assert connection.command("RESET") == b"+RESET\r\n"
            assert connection.command("GET", "k").startswith(b"-NOAUTH")

    def test_hello_authenticates_too(self, guarded):
        with Connection(guarded.port) as connection:
            assert connection.command("HELLO", "3").startswith(b"-NOAUTH")
            assert connection.command("HELLO", "3", "AUTH", "default", "nope").startswith(b"-WRONGPASS")
            assert connection.command("HELLO", "3", "AUTH", "default", "open sesame").startswith(b"%")
            assert connection.command("GET", "none") == b"_\r\n"
        with guarded.client(password="open sesame", protocol=3) as client:
            assert client.ping()
        with pytest.raises(redis.AuthenticationError):
            guarded.client(password="bad").ping()

    def test_before_auth_requests_are_small(self, guarded):
        for request, says in (
            (b"*100\r\n", b"-ERR Protocol error: unauthenticated multibulk length\r\n"),
            (b"*2\r\n$3\r\nGET\r\n$1000000\r\n", b"-ERR Protocol error: unauthenticated bulk length\r\n"),
        ):
            with guarded.connect() as connection:
                connection.sendall(request)
                assert closed_by_server(connection) == says


class TestUnixSocket:
    """The socket in the file system beside TCP."""

    @pytest.fixture
    def node(self, make_node):
        made = make_node()
        made.socket_path = f"{made.directory}/kv.sock"
        made.arguments += ["--unixsocket", made.socket_path]
        return made

    def test_both_listeners_see_the_same_keys(self, node):
        node.start()
        with redis.Redis(unix_socket_path=node.socket_path) as local, node.client() as remote:
            assert local.set("k", "from the socket")
            assert remote.get("k") == b"from the socket"

    @pytest.mark.parametrize("permission", ["700", "770", "777"])
    def test_its_permissions_are_what_was_asked_for(self, node, permission):
        node.arguments += ["--unixsocketperm", permission]
        node.start()
        mode = os.stat(node.socket_path).st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == int(permission, 8)

    @pytest.mark.bowline
    def test_a_stale_socket_file_is_replaced_and_a_living_one_is_not(self, node, make_node):
        node.start()
        node.kill()
        assert os.path.exists(node.socket_path), "kill -9 leaves the file"
        node.start()
        with redis.Redis(unix_socket_path=node.socket_path) as local:
            assert local.ping()
        other = make_node("--unixsocket", node.socket_path).launch()
        assert other.wait() != 0
        assert node.socket_path in other.printed()
        with redis.Redis(unix_socket_path=node.socket_path) as local:
            assert local.ping()

    def test_it_is_removed_at_a_clean_end(self, node):
        node.start()
        assert node.terminate() == 0
        assert not os.path.exists(node.socket_path)
