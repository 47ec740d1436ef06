"""The limit on memory from outside: what the process takes, what it answers, what a restart finds."""

import socket
import subprocess
from pathlib import Path

import pytest
import redis

import node as nodes
from wire import Connection, encode

MB = 1 << 20
LIMIT = 96 * MB
# Beyond the limit: pages that the allocator has not given back yet, and what waits to be written to the log. On a quiet
# machine the growth stays within a tenth; where the threads that evict and write wait for a core, it takes more.
TOLERATED = LIMIT // 4
POLICIES = [
    "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
]  # fmt: skip


def resident_bytes(node) -> int:
    """Resident memory of the server."""
    return int(Path(f"/proc/{node.pid()}/statm").read_text().split()[1]) * 4096


def set_request(number: int, size: int, lifetime_s: int | None = None) -> bytes:
    """SET of one key."""
    words = ["SET", f"key:{number:09d}", b"%0*d" % (size, number)]
    return encode(*words, "EX", lifetime_s) if lifetime_s else encode(*words)


def fill(node, numbers, size=500, lifetime_s=None, look=lambda: None) -> list[bytes]:
    """Writes keys in batches, calls `look` after each, and returns the different answers."""
    answers, numbers = set(), list(numbers)
    with socket.create_connection(("127.0.0.1", node.port), timeout=120) as connection, connection.makefile("rb") as lines:
        for start in range(0, len(numbers), 500):
            batch = numbers[start : start + 500]
            connection.sendall(b"".join(set_request(number, size, lifetime_s) for number in batch))
            answers.update(lines.readline() for _ in batch)
            look()
    return sorted(answers)


@pytest.mark.bowline
@pytest.mark.parametrize("policy", POLICIES)
def test_three_times_the_limit_stays_within_it(make_node, policy):
    """The growth of resident memory, at every moment, and after a kill -9 and a restart."""
    arguments = ("--maxmemory", LIMIT, "--maxmemory-policy", policy, "--durability", "none")
    node = make_node(*arguments).start()
    empty, most = resident_bytes(node), 0

    def look():
        nonlocal most
        most = max(most, resident_bytes(node) - empty)

    lifetime_s = 100_000 if policy.startswith("volatile") else None
    count = 3 * LIMIT // 560
    answers = fill(node, range(count), lifetime_s=lifetime_s, look=look)
    with node.client() as client:
        memory, keys, evicted = client.info("memory"), client.dbsize(), client.info("stats")["evicted_keys"]
        print(f"{policy}: {most / MB:.1f} MB resident at most, {memory['used_memory'] / MB:.1f} MB used, {keys} keys")
        assert most <= LIMIT + TOLERATED, f"{most / MB:.1f} MB"
        assert memory["used_memory"] > LIMIT * 0.9, "the limit is made use of"
        if policy == "noeviction":
            assert answers == [b"+OK\r\n", b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"]
            assert evicted == 0
        else:
            assert answers == [b"+OK\r\n"]
            assert keys + evicted == count
        client.bgsave()
        nodes.until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "the checkpoint", 120)
        client.execute_command("BL.AT", "always", "SET", "last", "one") if policy != "noeviction" else None
        names = set(client.scan_iter(count=10_000))
    node.kill()
    node.start()
    with node.client() as client:
        restarted = set(client.scan_iter(count=10_000))
        # Entries are packed otherwise after a restart, so some may have to go; how many depends on how the pages fill.
        assert restarted <= names and len(restarted) > 0.6 * len(names), "evicted keys stay away, the others are there"
        if policy != "noeviction":
            nodes.until(lambda: client.info("memory")["used_memory"] <= LIMIT, "memory within its limit after the restart")


@pytest.mark.bowline
def test_values_of_changing_sizes_stay_within_the_limit(make_node):
    """Each size has pages of its own in the allocator: what is evicted of one does not help the next at once."""
    node = make_node("--maxmemory", LIMIT, "--maxmemory-policy", "allkeys-lru", "--durability", "none").start()
    empty, most = resident_bytes(node), 0

    def look():
        nonlocal most
        most = max(most, resident_bytes(node) - empty)

    start = 0
    for size in (40, 300, 2_000, 120, 900):
        count = 2 * LIMIT // (size + 60)
        assert fill(node, range(start, start + count), size=size, look=look) == [b"+OK\r\n"]
        start += count
    # The server rests from moving for half a minute when a round of it did not help, which is so while sizes change.
    together = "entries to be moved together and pages to be free"
    nodes.until(lambda: resident_bytes(node) - empty <= LIMIT * 1.4, together, timeout_s=180)
    settled = resident_bytes(node) - empty
    with node.client() as client:
        used = client.info("memory")["used_memory"]
        assert used > LIMIT * 0.8, "no more was evicted than it had to be"
    print(f"{most / MB:.1f} MB resident at most, then {settled / MB:.1f} MB, {used / MB:.1f} MB used")


@pytest.mark.bowline
def test_a_lower_limit_evicts_without_a_write(make_node):
    node = make_node("--durability", "none").start()
    with node.client() as client:
        fill(node, range(100_000))
        before = client.info("memory")["used_memory"]
        assert before > 50 * MB
        client.config_set("maxmemory", "20mb")
        assert client.dbsize() == 100_000, "the policy is noeviction"
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("key", "value")
        client.config_set("maxmemory-policy", "allkeys-lfu")
        nodes.until(lambda: client.info("memory")["used_memory"] <= 20 * MB, "memory within the new limit")
        evicted = client.info("stats")["evicted_keys"]
        assert client.dbsize() == 100_000 - evicted
        assert client.info("memory")["used_memory"] > 15 * MB, "no more than it has to"
        client.config_set("maxmemory", "0")
        fill(node, range(100_000, 150_000))
        assert client.info("stats")["evicted_keys"] == evicted


@pytest.mark.bowline
def test_a_share_of_the_machine_is_a_limit_and_unknown_policies_are_refused(make_node):
    total = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line).split()[1]) * 1024
    node = make_node("--maxmemory", "50%").start()
    with node.client() as client:
        limit = client.info("memory")["maxmemory"]
        # A control group may allow less than the machine has.
        assert 0 < limit <= total // 2
        assert client.config_get("maxmemory") == {"maxmemory": "50%"}
        assert client.config_set("maxmemory-policy", "tier")
        with pytest.raises(redis.exceptions.ResponseError, match="must be one of the following"):
            client.config_set("maxmemory-policy", "tiers")
        with pytest.raises(redis.exceptions.ResponseError, match="memory or percent"):
            client.config_set("maxmemory", "101%")
        assert client.config_set("maxmemory-samples", 10)
    refused = make_node("--maxmemory-policy", "tiers").launch()
    assert refused.wait() == 2, refused.printed()
    assert "noeviction, tier" in refused.printed()


CONVERSATION = [
    ("CONFIG", "SET", "maxmemory", "1"),
    ("SET", "key", "2"), ("APPEND", "key", "2"), ("INCR", "key"), ("INCRBYFLOAT", "key", "1"), ("SETRANGE", "key", "0", "x"),
    ("MSET", "key", "1"), ("MSETNX", "key", "1"), ("SETNX", "none", "1"), ("SETEX", "none", "1", "1"),
    ("PSETEX", "none", "1", "1"), ("GETSET", "key", "1"), ("COPY", "key", "none"), ("DECRBY", "key", "1"),
    ("SET", "key"), ("GET", "key"), ("STRLEN", "key"), ("EXPIRE", "key", "1000"), ("PERSIST", "key"),
    ("GETEX", "key", "EX", "1000"), ("RENAME", "key", "name"), ("RENAMENX", "name", "key"), ("MOVE", "key", "1"),
    ("SELECT", "1"), ("MOVE", "key", "0"), ("SELECT", "0"), ("SWAPDB", "2", "3"), ("EXISTS", "key"), ("TOUCH", "key"),
    ("MULTI",), ("GET", "key"), ("EXEC",),
    ("MULTI",), ("SET", "key", "3"), ("EXEC",),
    ("MULTI",), ("SET", "key", "3"), ("DISCARD",),
    ("MULTI",), ("PING",), ("EXEC",),
    ("CONFIG", "SET", "maxmemory", "0"),
    ("MULTI",), ("SET", "key", "3"), ("GET", "key"), ("CONFIG", "SET", "maxmemory", "1"), ("EXEC",),
    ("SET", "key", "4"), ("DEL", "key"), ("GETDEL", "other"), ("UNLINK", "other"), ("FLUSHDB",), ("FLUSHALL",), ("PING",),
    ("OBJECT", "FREQ", "third"),
    ("CONFIG", "SET", "maxmemory", "0"), ("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"), ("SET", "key", "1"),
    ("OBJECT", "IDLETIME", "key"),
    # What is not tracked is said alike with each policy; a missing key comes first.
    *(
        words
        for policy in (
            "allkeys-lfu", "volatile-lfu", "allkeys-lru", "volatile-lru", "allkeys-random", "volatile-random",
            "volatile-ttl", "noeviction",
        )
        for words in (
            ("CONFIG", "SET", "maxmemory-policy", policy), ("OBJECT", "FREQ", "key"), ("OBJECT", "IDLETIME", "key"),
            ("OBJECT", "FREQ", "missing"), ("OBJECT", "IDLETIME", "missing"), ("OBJECT", "FREQ"), ("OBJECT", "IDLETIME"),
        )
    ),
    ("CONFIG", "SET", "maxmemory-policy", "volatile-ttl"), ("CONFIG", "SET", "maxmemory", "1"), ("SET", "key", "2"),
]  # fmt: skip


@pytest.mark.bowline
def test_a_client_without_touch_leaves_no_trace_of_its_reads(make_node):
    node = make_node("--maxmemory-policy", "allkeys-lfu").start()
    with Connection(node.port) as connection, Connection(node.port) as other:
        connection.command("SET", "key", "1")
        assert connection.command("CLIENT", "NO-TOUCH", "ON") == b"+OK\r\n"
        connection.command("GET", "key")
        connection.command("MULTI")
        connection.command("GET", "key")
        connection.command("EXEC")
        assert connection.command("OBJECT", "FREQ", "key") == b":0\r\n"
        connection.command("TOUCH", "key")
        assert connection.command("OBJECT", "FREQ", "key") == b":1\r\n"
        other.command("GET", "key")
        assert connection.command("OBJECT", "FREQ", "key") == b":2\r\n", "nobody else is meant"


@pytest.mark.needs("redis-server")
def test_what_is_refused_at_the_limit_is_what_redis_refuses(make_node, tmp_path):
    """The same conversation with redis-server, byte by byte."""
    port = nodes.free_port()
    theirs = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        nodes.until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "redis-server")
        node = make_node().start()
        with Connection(node.port) as ours, Connection(port) as other:
            for connection in (ours, other):
                connection.command("MSET", "key", "1", "other", "x", "third", "y")
            for words in CONVERSATION:
                replies = ours.command(*words), other.command(*words)
                # How often and how long ago: Redis has its own scale and a clock of whole seconds.
                counted = words[0] == "OBJECT" and all(reply[:1] == b":" for reply in replies)
                assert counted or replies[0] == replies[1], words
    finally:
        theirs.kill()
        theirs.wait()
