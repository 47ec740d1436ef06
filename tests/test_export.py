"""kv_client export: an RDB that Debian's redis-server loads, and that our own import brings back."""

import random
import shutil
import subprocess
import threading

import pytest
import redis

import node as nodes
from test_import import FAR_MS, RedisServer

OK = 0

pytestmark = pytest.mark.bowline


def fill(node) -> dict:
    """Several databases: integers, bytes, long and empty values, expiries. Returns what is there."""
    chance, expected = random.Random(5), {}
    for number in (0, 1, 3):
        with node.client(db=number) as client, client.pipeline(transaction=False) as pipeline:
            for at in range(700):
                key = f"key:{at}".encode() if at % 5 else chance.randbytes(1 + at % 60)
                value = [str(chance.randint(-2**63, 2**63 - 1)).encode(), b"", chance.randbytes(at % 300), b"z" * at,
                         b"0123", b"-7"][at % 6]
                expiry = FAR_MS + at if at % 4 == 0 else None
                pipeline.set(key, value, pxat=expiry)
                expected[(number, key)] = (value, -1 if expiry is None else expiry)
            large = chance.randbytes(3_000_000)
            pipeline.set("large", large)
            expected[(number, b"large")] = (large, -1)
            pipeline.execute()
    return expected


def found(make_client) -> dict:
    """What a server has in the databases 0 to 3."""
    entries = {}
    for number in range(4):
        with make_client(number) as client:
            for key in client.scan_iter(count=1000):
                entries[(number, key)] = (client.get(key), client.pexpiretime(key))
    return entries


@pytest.mark.needs("redis-server")
def test_redis_loads_the_export_and_our_import_brings_it_back(make_node, tmp_path):
    node = make_node().start()
    expected = fill(node)
    with node.client() as client:
        client.swapdb(1, 2)
        client.set("gone", "soon", px=1)
        nodes.until(lambda: client.exists("gone") == 0, "the key to expire")
    expected = {((2 if number == 1 else number), key): entry for (number, key), entry in expected.items()}
    path = tmp_path / "dump.rdb"
    done = nodes.kv_client("export", str(path), port=node.port)
    assert done.returncode == OK, done.stderr
    assert f"{len(expected)} entries".encode() in done.stdout and not path.with_name("dump.rdb.partial").exists()
    if nodes.tool("redis-check-rdb"):
        checked = subprocess.run([nodes.tool("redis-check-rdb"), str(path)], capture_output=True, check=False)
        assert checked.returncode == OK, checked.stdout
    server = RedisServer(tmp_path).start()
    try:
        assert found(server.client) == expected
    finally:
        server.stop()
    copy = make_node().start()
    imported = nodes.kv_client("import", str(path), port=copy.port)
    assert imported.returncode == OK, imported.stderr
    assert found(lambda number: copy.client(db=number)) == expected
    again = tmp_path / "again.rdb"
    with open(again, "wb") as out:
        piped = subprocess.run([nodes.KV_CLIENT, "-p", str(copy.port), "export", "-"], stdout=out, check=False)
    assert piped.returncode == OK
    third = make_node().start()
    assert nodes.kv_client("import", str(again), port=third.port).returncode == OK
    assert found(lambda number: third.client(db=number)) == expected


@pytest.mark.needs("redis-server")
def test_an_export_under_load_is_the_state_of_one_moment(make_node, tmp_path):
    """Two keys are always written together, to the same value: an export that mixes two moments shows it."""
    node = make_node().start()
    with node.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"still:{number}", "s" * 100)
        pipeline.execute()
    stop, problems = threading.Event(), []

    def write(number):
        try:
            with node.client() as client:
                turn = 0
                while not stop.is_set():
                    turn += 1
                    pair = turn % 50
                    client.mset({f"a:{number}:{pair}": turn, f"b:{number}:{pair}": turn})
        except redis.RedisError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        with node.client() as client:
            first = [f"a:{number}:1" for number in range(3)]
            nodes.until(lambda: problems or client.exists(*first) == 3, "the first pairs")
        path = tmp_path / "dump.rdb"
        done = nodes.kv_client("export", str(path), "--rate", "2mb", port=node.port)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert done.returncode == OK and not problems, (done.stderr, problems)
    server = RedisServer(tmp_path).start()
    try:
        with server.client() as client:
            pairs = [key for key in client.scan_iter(match="a:*", count=1000)]
            assert pairs and all(client.get(key) == client.get(b"b" + key[1:]) for key in pairs)
            assert client.dbsize() == 20_000 + 2 * len(pairs)
    finally:
        server.stop()


def test_a_file_that_cannot_be_written_leaves_nothing(make_node, tmp_path):
    node = make_node().start()
    done = nodes.kv_client("export", str(tmp_path / "none" / "dump.rdb"), port=node.port)
    assert done.returncode == 2 and b"cannot create" in done.stderr
    with node.client() as client:
        for wrong in (("FORMAT",), ("FORMAT", "csv"), ("RATE", "0"), ("BOTH", "x")):
            with pytest.raises(redis.ResponseError):
                client.execute_command("BL.BACKUP", "BEGIN", *wrong)
    shutil.rmtree(tmp_path)
