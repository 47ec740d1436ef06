"""Redis' files, made by a real redis-server, imported into a kv_server by kv_client and compared key by key.

The other way, a file of ours that redis-server loads, is a test of the crate that writes it (crates/rdb).
"""

import json
import random
import shutil
import subprocess
import time

import pytest
import redis

from node import free_port, kv_client, tool, until
from wire import encode

pytestmark = [pytest.mark.bowline, pytest.mark.needs("redis-server")]

OK, USAGE, SERVER_ERROR = 0, 2, 4
FAR_MS = 4_102_444_800_123


class RedisServer:
    """Debian's redis-server on a directory of its own."""

    def __init__(self, directory, *arguments):
        self.directory = directory
        self.port = free_port()
        self.arguments = arguments
        self.process = None

    def start(self):
        with open(self.directory / "redis.log", "ab") as output:
            self.process = subprocess.Popen(
                [tool("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
                 "--save", "", *self.arguments],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )
        until(self._answers, "redis-server to answer; see redis.log")
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.directory / "redis.log").read_text()[-2000:]
        try:
            with self.client() as client:
                return client.ping()
        except redis.exceptions.RedisError:
            return False

    def client(self, database=0):
        return redis.Redis("127.0.0.1", self.port, db=database)

    def stop(self):
        """Kills it: what it wrote is on its files already."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def make_redis(tmp_path):
    """Makes redis-servers, and ends them with the test."""
    made = []

    def make(*arguments):
        directory = tmp_path / f"redis-{len(made)}"
        directory.mkdir()
        made.append(RedisServer(directory, *arguments))
        return made[-1].start()

    yield make
    for server in made:
        server.stop()


def noise(length: int, seed: int) -> bytes:
    """Bytes that cannot be compressed, the same for the same seed."""
    return random.Random(seed).randbytes(length)


def fill(server):
    """Strings of every encoding, with and without expiry, in several databases."""
    client = server.client()
    client.set(b"", b"an empty key")
    client.set("empty", b"")
    client.set(bytes(range(256)), bytes(range(255, -1, -1)))
    client.set("spaces and \r\n", "line\r\nends")
    for number in (0, -1, 127, -128, 128, 32767, -32769, 2**31 - 1, -2**31, 2**31, 2**63 - 1, "007", "+1", "1e3", " 1"):
        client.set(f"number {number}", number)
    for length in (20, 21, 63, 64, 16383, 16384):
        client.set(f"repeated {length}", b"a" * length)
        client.set(f"noise {length}", noise(length, length))
    client.set("compressible", b"0123456789abcdef" * 65536)
    client.set("large", noise(1 << 20, 1))
    client.set("expires", "far away", pxat=FAR_MS)
    with client.pipeline(transaction=False) as pipeline:
        for i in range(5000):
            pipeline.set(f"many:{i}", f"value {i}", pxat=FAR_MS + i if i % 7 == 0 else None)
        pipeline.execute()
    for database in (1, 9, 15):
        other = server.client(database)
        other.set("same name", f"in database {database}")
        other.set("expires", database, pxat=FAR_MS + database)


def contents(client_of) -> dict:
    """Everything a server holds: (database, key) -> (value, expiry in milliseconds or -1)."""
    found = {}
    for database in range(16):
        with client_of(database) as client:
            for key in client.scan_iter(count=1000):
                found[database, key] = (client.get(key), client.execute_command("PEXPIRETIME", key))
    return found


def of_node(node):
    """The same for a kv_server."""
    return lambda database: node.client(db=database)


def run_import(node, *words, **options):
    return kv_client("import", *words, port=node.port, **options)


def result_of(done) -> dict:
    assert done.returncode == OK, done.stderr
    return json.loads(done.stdout)


def test_an_rdb_is_imported_key_by_key(make_redis, make_node):
    origin = make_redis()
    fill(origin)
    soon = origin.client(2)
    soon.set("gone", "v", px=1)
    expected = contents(origin.client)
    expected.pop((2, b"gone"), None)
    # Nothing reads it, so it may still be in the file: then it is left out because it has expired.
    origin.client().save()
    path = origin.directory / "dump.rdb"

    node = make_node().start()
    result = result_of(run_import(node, "--json", str(path)))
    assert contents(of_node(node)) == expected
    assert result["keys"] == len(expected) and result["skipped"] == 0 and result["truncated"] is None
    assert set(result["databases"]) >= {0, 1, 9, 15}

    # Again, and from a pipe: an RDB may be imported twice.
    assert result_of(run_import(node, "--json", "-", stdin=path.read_bytes()))["keys"] == len(expected)
    assert contents(of_node(node)) == expected
    # It is all kept: the answers meant that it is on disk.
    node.kill()
    node.start()
    assert contents(of_node(node)) == expected


@pytest.mark.parametrize("preamble", ["yes", "no"], ids=["rdb base", "aof base"])
def test_an_append_only_directory_is_imported(make_redis, make_node, preamble):
    origin = make_redis("--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", preamble,
                        "--aof-timestamp-enabled", "yes")
    fill(origin)
    client = origin.client()
    client.bgrewriteaof()
    until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0
          and client.info("persistence")["aof_rewrite_scheduled"] == 0, "the rewrite")
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("in a transaction", 1)
        pipeline.incr("in a transaction")
        pipeline.execute()
    client.append("empty", noise(1000, 5))
    client.delete("large")
    client.rename("compressible", "renamed")
    client.expire("noise 20", 100_000)
    origin.client(9).incrby("counter", 41)
    origin.client(9).incr("counter")
    expected = contents(origin.client)
    origin.stop()

    node = make_node().start()
    directory = origin.directory / "appendonlydir"
    result = result_of(run_import(node, "--json", str(directory)))
    assert contents(of_node(node)) == expected
    assert result["truncated"] is None and result["skipped"] == 0
    assert (result["keys"] > 5000) == (preamble == "yes")
    assert result["commands"] > 5

    # The manifest by name does the same for an empty server.
    other = make_node().start()
    [manifest] = directory.glob("*.manifest")
    result_of(run_import(other, "--json", str(manifest)))
    assert contents(of_node(other)) == expected


def test_a_single_append_only_file_with_and_without_preamble(make_redis, make_node):
    origin = make_redis("--appendonly", "yes", "--appendfsync", "always")
    client = origin.client()
    client.set("base", "b")
    client.bgrewriteaof()
    until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "the rewrite")
    until(lambda: any((origin.directory / "appendonlydir").glob("*.2.base.rdb")), "the new base")
    client.append("base", "ase")
    client.set("after", bytes(range(256)))
    expected = contents(origin.client)
    origin.stop()
    [base] = (origin.directory / "appendonlydir").glob("*.base.rdb")
    [increment] = (origin.directory / "appendonlydir").glob("*.incr.aof")
    # What Redis wrote before 7.0: the RDB and the commands in one file.
    one = origin.directory / "one.aof"
    one.write_bytes(base.read_bytes() + increment.read_bytes())
    node = make_node().start()
    result = result_of(run_import(node, "--json", str(one)))
    assert result["keys"] == 1 and result["commands"] == 2
    assert contents(of_node(node)) == expected


def test_a_torn_last_command_is_left_out_as_redis_does(make_redis, make_node):
    origin = make_redis("--appendonly", "yes", "--appendfsync", "always")
    client = origin.client()
    client.set("whole", "1")
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("torn", 1)
        pipeline.incr("torn")
        pipeline.execute()
    origin.stop()
    [increment] = (origin.directory / "appendonlydir").glob("*.incr.aof")
    increment.write_bytes(increment.read_bytes()[:-5])
    copy = origin.directory / "copy"
    shutil.copytree(origin.directory / "appendonlydir", copy)
    origin.start()
    expected = contents(origin.client)
    assert set(key for _, key in expected) == {b"whole"}

    node = make_node().start()
    done = run_import(node, "--json", str(copy))
    assert result_of(done)["truncated"]["in_transaction"] is True
    assert b"ends within a transaction" in done.stderr
    assert contents(of_node(node)) == expected


def test_expiries_that_pass_before_later_commands_are_kept(make_redis, make_node):
    origin = make_redis("--appendonly", "yes", "--appendfsync", "always")
    origin.stop()
    # Written by hand, because what Redis would log depends on when it is asked: every expiry is long past, or soon.
    today = int(time.time() * 1000) + 3_600_000
    commands = [
        ("SELECT", 0), ("SET", "counter", 1, "PXAT", 1000), ("INCR", "counter"),
        ("SET", "moved", 1), ("PEXPIREAT", "moved", 2000), ("RENAME", "moved", "moved on"),
        ("SET", "persisted", 1, "EXAT", 3), ("PERSIST", "persisted"),
        ("SET", "overwritten", 1, "PXAT", 1000), ("SET", "overwritten", 2),
        ("SET", "later", 1, "PXAT", FAR_MS), ("INCR", "later"),
        ("SET", "today", 1, "PXAT", today), ("APPEND", "today", "x"),
        ("SELECT", 7), ("MULTI",), ("SET", "other", 1, "PXAT", 1000), ("APPEND", "other", "x"), ("EXEC",),
    ]
    [increment] = (origin.directory / "appendonlydir").glob("*.incr.aof")
    increment.write_bytes(b"".join(encode(*command) for command in commands))
    copy = origin.directory / "copy"
    shutil.copytree(origin.directory / "appendonlydir", copy)
    origin.start()
    expected = {place: found for place, found in contents(origin.client).items() if found[0] is not None}
    assert expected == {
        (0, b"persisted"): (b"1", -1), (0, b"overwritten"): (b"2", -1),
        (0, b"later"): (b"2", FAR_MS), (0, b"today"): (b"1x", today),
    }

    node = make_node().start()
    result = result_of(run_import(node, "--json", str(copy)))
    assert contents(of_node(node)) == expected
    assert result["expired"] == 3


def test_values_of_other_types_end_the_import_or_are_left_out(make_redis, make_node):
    origin = make_redis()
    client = origin.client()
    client.set("text", "kept")
    client.rpush("a list", 1, 2, 3)
    client.hset("a hash", "field", "value")
    client.zadd("a zset", {"member": 1.5})
    client.sadd("a set", "x", "y")
    client.xadd("a stream", {"f": "v"})
    client.save()
    path = str(origin.directory / "dump.rdb")
    node = make_node().start()
    done = run_import(node, path)
    assert done.returncode == SERVER_ERROR
    assert b"which the server cannot hold" in done.stderr and b"nothing was imported" in done.stderr
    assert contents(of_node(node)) == {}
    done = run_import(node, "--json", "--skip-unsupported", path)
    assert result_of(done)["skipped"] == 5
    for name in (b'"a list" of database 0 is a list', b'"a hash" of database 0 is a hash', b'"a stream" of database 0 is a stream'):
        assert name in done.stderr
    assert contents(of_node(node)) == {(0, b"text"): (b"kept", -1)}


def test_a_damaged_or_cut_file_changes_nothing(make_redis, make_node):
    origin = make_redis()
    fill(origin)
    origin.client().save()
    good = (origin.directory / "dump.rdb").read_bytes()
    node = make_node().start()
    for name, bad in (("cut", good[:-1000]), ("flipped", good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])):
        path = origin.directory / name
        path.write_bytes(bad)
        done = run_import(node, str(path))
        assert done.returncode == USAGE, done
        assert b"byte" in done.stderr and b"nothing was imported" in done.stderr
        assert contents(of_node(node)) == {}
