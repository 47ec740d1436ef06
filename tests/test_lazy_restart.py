"""`restart lazy` from outside: the server answers before its entries are loaded, and nothing shows it but the time."""

import random
import socket
import time

import pytest

import node as nodes
from wire import encode

COUNT = 1_000_000


def value(number: int, generation: int = 0) -> bytes:
    """A value of 32 bytes that tells which key it belongs to."""
    return (b"%d.%d|" % (number, generation) * 32)[:32]


def fill(node, numbers, generation=0):
    """Writes keys in batches."""
    numbers = list(numbers)
    with socket.create_connection(("127.0.0.1", node.port), timeout=300) as connection, connection.makefile("rb") as lines:
        for start in range(0, len(numbers), 1000):
            batch = numbers[start : start + 1000]
            connection.sendall(b"".join(encode("SET", f"key:{number}", value(number, generation)) for number in batch))
            assert {lines.readline() for _ in batch} == {b"+OK\r\n"}


def check(node, numbers, generation=lambda number: 0):
    """Reads keys and compares them."""
    numbers = list(numbers)
    with node.client() as client:
        for start in range(0, len(numbers), 1000):
            batch = numbers[start : start + 1000]
            found = client.mget([f"key:{number}" for number in batch])
            wrong = [n for n, got in zip(batch, found, strict=True) if got != value(n, generation(n))]
            assert not wrong, f"key:{wrong[0]} and {len(wrong) - 1} others"


def loading(node) -> dict:
    """What INFO says of the load."""
    with node.client() as client:
        return {name: found for name, found in client.info("persistence").items() if "loading" in name}


@pytest.mark.bowline
def test_a_million_keys_are_served_before_they_are_loaded(make_node):
    """Stopped, started lazily, read, changed, killed and started lazily again: every value is right."""
    node = make_node("--restart", "lazy").start()
    assert loading(node)["lazy_loading"] == 0
    fill(node, range(COUNT))
    node.terminate()
    began = time.monotonic()
    node.start()
    with node.client() as client:
        assert client.get("key:123456") == value(123456)
        print(f"first value {time.monotonic() - began:.3f} s after the start; {loading(node)}")
        assert client.config_get("restart") == {"restart": "lazy"}
        changed = set(random.Random(7).sample(range(COUNT), 5000))
        fill(node, changed, generation=1)
        with client.pipeline() as transaction:
            transaction.watch("key:1")
            transaction.multi()
            transaction.get("key:2").get("key:3").dbsize()
            assert transaction.execute() == [*(value(n, int(n in changed)) for n in (2, 3)), COUNT]
    node.kill()
    node.start()
    check(node, random.Random(8).sample(range(COUNT), 2000), lambda number: int(number in changed))
    check(node, range(COUNT), lambda number: int(number in changed))
    nodes.until(lambda: loading(node)["lazy_loading"] == 0, "everything is loaded")
    told = loading(node)
    assert told["loading"] == 0 and told["lazy_loading_segments"] == told["lazy_loading_segments_done"], told
    assert "all entries are in memory" in node.printed()
    with node.client() as client:
        assert client.dbsize() == COUNT


@pytest.mark.bowline
def test_many_clients_find_everything_while_it_is_loaded(make_node):
    """Pipelines, WATCH and whole databases at once, on one loop and right after the start; twice with a kill."""
    node = make_node("--restart", "lazy", "--threads", 1).start()
    count = COUNT // 4
    fill(node, range(count))
    node.terminate()
    for _ in range(2):
        node.start()
        clients = [node.client() for _ in range(16)]
        for place, client in enumerate(clients):
            client.connection = client.connection_pool.get_connection()
            client.connection.send_command("WATCH", f"key:{place}", f"key:{place + 1000}")
            client.connection.send_command("GET", f"key:{place * 97}")
            client.connection.send_command("DBSIZE" if place % 4 == 0 else "ECHO", *([] if place % 4 == 0 else ["x"]))
            client.connection.send_command("MULTI")
            client.connection.send_command("INCRBY", f"count:{place}", 1)
            client.connection.send_command("EXEC")
        for place, client in enumerate(clients):
            replies = [client.connection.read_response() for _ in range(6)]
            assert replies[0] == b"OK" and replies[1] == value(place * 97), replies
            assert replies[2] >= count if place % 4 == 0 else replies[2] == b"x"
            assert replies[3:5] == [b"OK", b"QUEUED"] and len(replies[5]) == 1, replies
        node.kill()
    node.start()
    check(node, range(count))
    with node.client() as client:
        assert client.mget([f"count:{place}" for place in range(16)]) == [b"2"] * 16
