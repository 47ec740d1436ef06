"""The plain text protocol on a listener of its own (`--text-port`)."""

import socket
import subprocess

import pytest

import node as nodes

pytestmark = pytest.mark.bowline


@pytest.fixture(scope="module")
def text_node(base_directory):
    """One server with a text port for this file."""
    import tempfile

    port = nodes.free_port()
    running = nodes.Node(tempfile.mkdtemp(dir=base_directory), "--text-port", port)
    running.text_port = port
    running.start()
    yield running
    running.kill()


@pytest.fixture
def ask(text_node):
    """Sends lines, closes the sending side, returns all that the server answered."""
    with text_node.client() as client:
        client.flushall()

    def send(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", text_node.text_port), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while received := connection.recv(1 << 16):
                answer += received
        return bytes(answer)

    return send


def lines(answer: bytes) -> list[bytes]:
    """The answer's lines without their ends."""
    return [line.rstrip(b"\r") for line in answer.split(b"\n")[:-1]]


def test_every_word_answers_as_documented(ask):
    answer = lines(ask(b'PING\nPUT "a key" "a value"\nGET "a key"\nEXISTS "a key"\nSIZE\nDELETE "a key"\n'
                       b'EXISTS "a key"\nGET "a key"\nDELETE "a key"\nSIZE\n'))
    assert answer[:5] == [b"PONG", b"OK", b'a value', b"true", b"1"]
    assert answer[5] in (b"OK", b"true")
    assert answer[6:8] == [b"false", b"NOT_FOUND"]
    assert answer[8] in (b"NOT_FOUND", b"false")
    assert answer[9] == b"0"


def test_words_need_no_quotes_and_no_capitals(ask):
    assert lines(ask(b"put k v\nget k\nexists k\n")) == [b"OK", b"v", b"true"]


def test_what_is_written_here_is_seen_by_redis_clients(ask, text_node):
    assert lines(ask(b'PUT "k" "a\\x00b\\n\\"c\\""\n')) == [b"OK"]
    with text_node.client() as client:
        assert client.get("k") == b'a\x00b\n"c"'
        client.set("other", "x")
    assert lines(ask(b"GET other\nSIZE\n")) == [b"x", b"2"]


def test_a_value_cannot_forge_a_reply_line(ask, text_node):
    with text_node.client() as client:
        client.set("k", b"one\nOK\nthree")
    answer = lines(ask(b'GET "k"\nPING\n'))
    assert answer[-1] == b"PONG"
    assert len(answer) == 2, f"line ends inside a value must be escaped: {answer}"


def test_mistakes_are_answered_with_error_and_the_connection_goes_on(ask):
    answer = lines(ask(b'GET\nPUT "k"\nFROBNICATE "x"\nPUT "k" "unclosed\nPING\n'))
    assert len(answer) == 5
    assert all(line.startswith(b"ERROR ") for line in answer[:4])
    assert answer[4] == b"PONG"


def test_flush_empties_and_stats_lists_names_and_values(ask):
    assert lines(ask(b"PUT a 1\nPUT b 2\nFLUSH\nSIZE\n")) == [b"OK", b"OK", b"OK", b"0"]
    rows = lines(ask(b"STATS\n"))
    assert len(rows) > 5 and all(b": " in row for row in rows if row), rows


def test_an_endless_line_is_refused_in_bounded_memory(text_node):
    with socket.create_connection(("127.0.0.1", text_node.text_port), timeout=60) as connection:
        said = b""
        try:
            for _ in range(2000):
                connection.sendall(b"x" * (1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            raise AssertionError("2 GB without a line end were accepted")
        try:
            said = connection.recv(1000)
        except ConnectionResetError:
            pass
        assert said == b"" or said.startswith(b"ERROR ")
    with text_node.client() as client:
        assert client.ping()


@pytest.mark.needs("nc")
def test_echo_stats_into_nc_works(text_node):
    done = subprocess.run(
        [nodes.tool("nc"), "-N", "127.0.0.1", str(text_node.text_port)], input=b"STATS\n", capture_output=True,
        timeout=30, check=True,
    )
    assert b": " in done.stdout
