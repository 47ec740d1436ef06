"""Data larger than memory, from outside: `maxmemory-policy tier` with real clients, kills and restarts."""

import random
import socket
import threading
from pathlib import Path

import pytest

import node as nodes
from wire import Connection, encode

MB = 1 << 20
LIMIT = 64 * MB
SIZE = 4000
COUNT = 10 * LIMIT // SIZE


def value(number: int, generation: int = 0) -> bytes:
    """A value that tells which key it belongs to, in every part of it."""
    text = b"%d.%d|" % (number, generation)
    return (text * (SIZE // len(text) + 1))[:SIZE]


def fill(node, numbers, generation=0) -> set[bytes]:
    """Writes keys in batches; returns the different answers."""
    answers, numbers = set(), list(numbers)
    with socket.create_connection(("127.0.0.1", node.port), timeout=300) as connection, connection.makefile("rb") as lines:
        for start in range(0, len(numbers), 200):
            batch = numbers[start : start + 200]
            connection.sendall(b"".join(encode("SET", f"key:{number}", value(number, generation)) for number in batch))
            answers.update(lines.readline() for _ in batch)
    return answers


def resident_bytes(node) -> int:
    """Resident memory of the server."""
    return int(Path(f"/proc/{node.pid()}/statm").read_text().split()[1]) * 4096


def check(node, numbers, generation=lambda number: 0, pipeline=50):
    """Reads keys and compares them."""
    numbers = list(numbers)
    with node.client() as client:
        for start in range(0, len(numbers), pipeline):
            batch = numbers[start : start + pipeline]
            found = client.pipeline(transaction=False)
            [found.get(f"key:{number}") for number in batch]
            for number, got in zip(batch, found.execute(), strict=True):
                assert got == value(number, generation(number)), f"key:{number} is {got[:40] if got else got}"


@pytest.mark.bowline
def test_ten_times_as_much_as_memory_is_served_and_survives_a_kill(make_node):
    """Filled, read in any order, changed, killed, restarted: every value is right and memory stays within its limit."""
    node = make_node("--maxmemory", LIMIT, "--maxmemory-policy", "tier").start()
    empty = resident_bytes(node)
    assert fill(node, range(COUNT)) == {b"+OK\r\n"}
    generator = random.Random(7)
    numbers = generator.sample(range(COUNT), 4000)
    check(node, numbers)
    changed = set(generator.sample(range(COUNT), 2000))
    assert fill(node, changed, generation=1) == {b"+OK\r\n"}
    with node.client() as client:
        memory = client.info("memory")
        assert client.dbsize() == COUNT
        assert memory["tier_cold_keys"] > COUNT // 2 and memory["tier_values_fetched"] > 2000, memory
        assert memory["tier_values_unreadable"] == 0
    grown = resident_bytes(node) - empty
    print(f"{grown / MB:.1f} MB resident for {COUNT * SIZE / MB:.0f} MB of values, limit {LIMIT / MB:.0f} MB")
    # The log's buffers and the allocator's unused pages come on top.
    assert grown < 2 * LIMIT, f"{grown / MB:.1f} MB"
    for kill in (True, False):
        node.kill() if kill else node.terminate()
        node.start()
        assert resident_bytes(node) - empty < 2 * LIMIT
        with node.client() as client:
            assert client.dbsize() == COUNT
        check(node, numbers + list(changed), lambda number: int(number in changed))


@pytest.mark.bowline
def test_commands_on_cold_values_answer_as_on_others(make_node):
    """One of each kind, on keys that are cold for sure: memory is a tenth of the data."""
    node = make_node("--maxmemory", LIMIT // 4, "--maxmemory-policy", "tier").start()
    count = COUNT // 4
    fill(node, range(count))
    with node.client() as client:
        assert client.append("key:1", "tail") == SIZE + 4
        assert client.get("key:1") == value(1) + b"tail"
        assert client.setrange("key:2", 1, "new") == SIZE
        assert client.get("key:2") == value(2)[:1] + b"new" + value(2)[4:]
        assert client.rename("key:3", "other") and client.get("other") == value(3)
        assert client.copy("key:4", "copy") and client.get("copy") == value(4) == client.get("key:4")
        assert client.expire("key:5", 1000) and 990 < client.ttl("key:5") <= 1000 and client.get("key:5") == value(5)
        assert client.getdel("key:6") == value(6) and client.exists("key:6") == 0
        assert client.strlen("key:7") == SIZE and client.getrange("key:7", 0, 3) == value(7)[:4]
        assert client.mget([f"key:{n}" for n in range(8, 40)]) == [value(n) for n in range(8, 40)]
        assert client.set("key:41", "x", get=True) == value(41)
        assert client.move("key:42", 1)
        client.select(1)
        assert client.get("key:42") == value(42)
        client.select(0)
        assert SIZE in client.execute_command("BL.ENTRY", "key:43")
        before = client.info("memory")["tier_values_fetched"]
        assert client.exists(*[f"key:{n}" for n in range(100, 200)]) == 100
        assert client.type("key:100") == b"string" and client.ttl("key:100") == -1
        assert client.object("encoding", "key:100") == b"raw"
        assert client.delete(*[f"key:{n}" for n in range(100, 200)]) == 100
        assert client.info("memory")["tier_values_fetched"] == before, "none of these reads a value"
    watcher, writer = node.client(), node.client()
    with watcher.pipeline() as transaction:
        transaction.watch("key:50")
        transaction.multi()
        transaction.incr("count").strlen("key:50").incr("count").getrange("key:51", 0, 1)
        assert transaction.execute() == [1, SIZE, 2, value(51)[:2]]
    with watcher.pipeline() as transaction:
        transaction.watch("key:52")
        writer.set("key:52", "other")
        transaction.multi()
        transaction.incr("count")
        with pytest.raises(Exception, match="Watched"):
            transaction.execute()


@pytest.mark.bowline
def test_cold_reads_do_not_hold_up_other_connections(make_node):
    """Clients read cold values as fast as they can; another one pings meanwhile, on the same loop."""
    node = make_node("--maxmemory", LIMIT // 4, "--maxmemory-policy", "tier", "--threads", 1).start()
    count = COUNT // 4
    fill(node, range(count))
    done, failures = threading.Event(), []

    def read(seed):
        generator = random.Random(seed)
        with node.client() as client:
            while not done.is_set():
                number = generator.randrange(count)
                if client.get(f"key:{number}") != value(number):
                    failures.append(number)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    [reader.start() for reader in readers]
    with Connection(node.port) as connection:
        for _ in range(500):
            assert connection.command("PING") == b"+PONG\r\n"
    done.set()
    [reader.join() for reader in readers]
    assert not failures
    with node.client() as client:
        assert client.info("memory")["tier_values_fetched"] > 100


@pytest.mark.bowline
def test_many_large_cold_values_at_once_are_refused_by_name(make_node):
    """What can never be in memory together is not fetched; fewer at once are."""
    node = make_node("--maxmemory", LIMIT // 4, "--maxmemory-policy", "tier").start()
    with node.client() as client:
        [client.set(f"large:{n}", bytes([n]) * MB) for n in range(64)]
        nodes.until(lambda: client.info("memory")["tier_cold_keys"] > 40, "values to leave memory", 60)
        with pytest.raises(Exception, match="sum of the values to be read"):
            client.mget([f"large:{n}" for n in range(64)])
        for n in range(64):
            assert client.get(f"large:{n}") == bytes([n]) * MB
        assert [len(found) for found in client.mget([f"large:{n}" for n in range(4)])] == [MB] * 4
