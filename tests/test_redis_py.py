"""A real client library against a real server: redis-py, RESP2 and RESP3."""

import random
import string
import threading

import pytest
import redis


def test_a_written_value_is_read_back(client):
    assert client.set("greeting", "hello") is True
    assert client.get("greeting") == b"hello"
    assert client.get("nothing") is None


def test_keys_and_values_may_hold_any_byte(client):
    every_byte = bytes(range(256))
    key = b"key \r\n\x00" + every_byte
    assert client.set(key, every_byte * 3)
    assert client.get(key) == every_byte * 3
    assert client.keys("*") == [key]
    assert client.set(b"", b"") and client.get(b"") == b""


def test_numbers_count_and_refuse_what_is_no_number(client):
    assert client.incr("n") == 1
    assert client.incrby("n", 41) == 42
    assert client.decr("n") == 41
    assert client.incrbyfloat("f", 10.5) == 10.5
    assert client.incrbyfloat("f", 0.1) == 10.6
    client.set("text", "abc")
    with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
        client.incr("text")
    client.set("limit", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="increment or decrement would overflow"):
        client.incr("limit")


def test_many_keys_at_once(client):
    pairs = {f"k{i}".encode(): f"v{i}".encode() for i in range(500)}
    assert client.mset(pairs)
    assert client.mget(list(pairs) + ["none"]) == list(pairs.values()) + [None]
    assert client.exists(*pairs, "none") == 500
    assert client.dbsize() == 500
    assert client.unlink(*list(pairs)[:100]) == 100
    assert client.delete(*pairs) == 400


def test_set_options_decide_whether_it_writes(client):
    assert client.set("k", "1", nx=True) is True
    assert client.set("k", "2", nx=True) is None
    assert client.set("k", "3", xx=True) is True
    assert client.set("none", "3", xx=True) is None
    assert client.set("k", "4", get=True) == b"3"
    assert client.getdel("k") == b"4" and client.exists("k") == 0
    assert client.getset("k", "5") is None
    assert client.append("k", "67") == 3
    assert client.getrange("k", 1, -1) == b"67"
    assert client.setrange("k", 5, "x") == 6 and client.get("k") == b"567\x00\x00x"
    assert client.strlen("k") == 6


def test_expiry_is_kept_and_taken_away(client):
    client.set("k", "v", ex=100)
    assert 98 <= client.ttl("k") <= 100
    assert 98_000 <= client.pttl("k") <= 100_000
    client.set("k", "w", keepttl=True)
    assert client.ttl("k") > 0
    assert client.persist("k") is True and client.ttl("k") == -1
    assert client.ttl("none") == -2
    assert client.expire("k", 100, nx=True) is True
    assert client.expire("k", 50, gt=True) is False
    assert client.expire("k", 50, lt=True) is True
    client.set("past", "v")
    assert client.expireat("past", 1) is True
    assert client.get("past") is None and client.exists("past") == 0


def test_an_expired_key_is_never_seen_again(client):
    client.set("short", "v", px=30)
    client.set("stays", "v")
    while client.get("short") is not None:
        pass
    for _ in range(20):
        assert client.get("short") is None
        assert client.exists("short") == 0
        assert b"short" not in client.keys("*")
    assert client.dbsize() == 1


def test_a_pipeline_answers_in_order(client):
    with client.pipeline(transaction=False) as pipeline:
        for i in range(5000):
            pipeline.set(f"k{i}", i)
            pipeline.get(f"k{i}")
        answers = pipeline.execute()
    assert answers[::2] == [True] * 5000
    assert answers[1::2] == [str(i).encode() for i in range(5000)]


def test_an_error_in_a_pipeline_leaves_the_others_alone(client):
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("a", "x").incr("a").set("b", "y").execute_command("NOSUCHCOMMAND").get("b")
        answers = pipeline.execute(raise_on_error=False)
    assert answers[0] is True and answers[2] is True and answers[4] == b"y"
    assert isinstance(answers[1], redis.ResponseError) and "not an integer" in str(answers[1])
    assert isinstance(answers[3], redis.ResponseError) and "unknown command" in str(answers[3])


def test_a_transaction_runs_as_a_whole(client):
    with client.pipeline(transaction=True) as transaction:
        transaction.set("a", 1).incr("a").get("a").mget("a", "none")
        assert transaction.execute() == [True, 2, b"2", [b"2", None]]


def test_a_watched_key_that_changed_ends_the_transaction(server, client):
    client.set("balance", 10)
    with server.client() as other, client.pipeline() as transaction:
        transaction.watch("balance")
        seen = int(transaction.get("balance"))
        other.set("balance", 99)
        transaction.multi()
        transaction.set("balance", seen + 1)
        with pytest.raises(redis.WatchError):
            transaction.execute()
    assert client.get("balance") == b"99"


def test_a_watched_key_that_expired_or_was_deleted_ends_the_transaction(server, client):
    for change in ("delete", "expire", "flush"):
        client.set("k", "v")
        with server.client() as other, client.pipeline() as transaction:
            transaction.watch("k")
            if change == "delete":
                other.delete("k")
            elif change == "expire":
                other.pexpireat("k", 1)
            else:
                other.flushdb()
            transaction.multi()
            transaction.set("k", "mine")
            with pytest.raises(redis.WatchError):
                transaction.execute()
        assert client.get("k") is None


def test_a_command_refused_while_queueing_aborts_the_transaction(client):
    with client.pipeline(transaction=True) as transaction:
        transaction.set("a", 1).execute_command("GET")
        with pytest.raises(redis.ResponseError):
            transaction.execute()
    assert client.exists("a") == 0


def test_counters_lose_no_increment_under_contention(server):
    clients, increments = 5, 100

    def work():
        with server.client() as mine:
            for _ in range(increments):
                mine.incr("plain")
                mine.transaction(lambda pipe: (n := int(pipe.get("watched") or 0), pipe.multi(),
                                               pipe.set("watched", n + 1)), "watched")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.client() as reader:
        assert reader.mget("plain", "watched") == [b"500", b"500"]


def test_scan_returns_every_key_that_was_there_all_the_time(server, client):
    stable = {f"stable:{i}".encode() for i in range(3000)}
    for chunk in range(0, 3000, 500):
        client.mset({key: b"v" for key in list(stable)[chunk:chunk + 500]})
    stop = threading.Event()

    def churn():
        with server.client() as other:
            i = 0
            while not stop.is_set():
                i += 1
                with other.pipeline(transaction=False) as pipeline:
                    for j in range(50):
                        pipeline.set(f"coming:{i}:{j}", "v")
                        pipeline.delete(f"coming:{i - 2}:{j}")
                    pipeline.execute()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for count in (1, 10, 1000):
            seen = set(client.scan_iter(match="stable:*", count=count))
            assert stable <= seen, f"{len(stable - seen)} keys missing with COUNT {count}"
            assert seen == stable
    finally:
        stop.set()
        writer.join()


def test_scan_filters_by_type_and_pattern(client):
    client.mset({"a:1": "x", "a:2": "y", "b:1": "z"})
    assert sorted(client.scan_iter(match="a:*")) == [b"a:1", b"a:2"]
    assert sorted(client.scan_iter(_type="string")) == [b"a:1", b"a:2", b"b:1"]
    assert list(client.scan_iter(_type="list")) == []
    assert sorted(client.keys("?:1")) == [b"a:1", b"b:1"]
    assert sorted(client.keys("[^a]:*")) == [b"b:1"]


def test_databases_are_apart_and_can_be_swapped(server, client):
    with server.client(db=1) as first:
        first.set("k", "one")
        client.set("k", "zero")
        assert client.get("k") == b"zero" and first.get("k") == b"one"
        client.swapdb(0, 1)
        assert client.get("k") == b"one" and first.get("k") == b"zero"
        assert client.move("k", 1) is False
        first.delete("k")
        assert client.move("k", 1) is True and first.get("k") == b"one"
        assert client.copy("k", "k2") is False
        first.flushdb()
        assert first.dbsize() == 0
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.execute_command("SELECT", 9999)


def test_rename_and_copy_carry_the_expiry(client):
    client.set("a", "v", ex=100)
    client.rename("a", "b")
    assert client.get("a") is None and client.ttl("b") > 90
    assert client.copy("b", "c") is True and client.ttl("c") > 90
    assert client.copy("b", "c") is False and client.copy("b", "c", replace=True) is True
    assert client.renamenx("b", "c") is False
    with pytest.raises(redis.ResponseError, match="no such key"):
        client.rename("none", "x")


def test_a_value_of_a_hundred_megabytes_goes_in_and_out(server):
    value = random.Random(7).randbytes(1 << 20) * 100
    with server.client(socket_timeout=120) as client:
        assert client.set("big", value)
        assert client.strlen("big") == len(value)
        assert client.getrange("big", len(value) - 4, -1) == value[-4:]
        assert client.get("big") == value
        assert client.append("big", "tail") == len(value) + 4
        assert client.delete("big") == 1


def test_a_client_says_who_it_is(server, client):
    client.client_setname("worker-7")
    assert client.client_getname() in ("worker-7", b"worker-7")
    assert any(entry["name"] == "worker-7" for entry in client.client_list())
    assert client.client_info()["id"] == client.client_id()
    with server.client() as other:
        assert other.client_id() > client.client_id()


def test_info_tells_what_frameworks_look_for(client):
    info = client.info()
    assert int(info["redis_version"].split(".")[0]) >= 7
    assert info["redis_mode"] == "standalone" and info["role"] == "master"
    assert info["loading"] == 0
    assert "maxmemory_policy" in info and "connected_clients" in info and info["used_memory"] > 0
    client.set("k", "v")
    assert client.info("keyspace")["db0"]["keys"] == 1


def test_the_server_describes_its_commands(client):
    assert client.command_count() > 80
    raw = client.execute_command("COMMAND GETKEYS", "MSET", "a", "1", "b", "2")
    assert [name if isinstance(name, bytes) else name.encode() for name in raw] == [b"a", b"b"]
    documented = client.execute_command("COMMAND DOCS", "get")
    assert documented


def test_time_is_now_and_echo_echoes(client):
    import time

    seconds, microseconds = client.time()
    assert abs(seconds - time.time()) < 60 and 0 <= microseconds < 1_000_000
    assert client.echo("x\r\ny") == b"x\r\ny"
    assert client.ping() is True


def test_random_strings_survive_a_model(client):
    """Long random sequences against a dict: what the server holds is what was written, in every size class."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    model = {}
    for _ in range(3000):
        key = "m:" + rng.choice(string.ascii_lowercase[:8]) + str(rng.randrange(20))
        action = rng.randrange(6)
        if action <= 2:
            value = rng.randbytes(rng.choice([0, 1, 7, 8, 15, 63, 64, 65, 200, 5000]))
            client.set(key, value)
            model[key] = value
        elif action == 3:
            assert client.delete(key) == (model.pop(key, None) is not None)
        elif action == 4:
            tail = rng.randbytes(rng.randrange(40))
            assert client.append(key, tail) == len(model.get(key, b"") + tail)
            model[key] = model.get(key, b"") + tail
        else:
            assert client.get(key) == model.get(key)
    assert client.dbsize() == len(model)
    assert client.mget(list(model)) == list(model.values())
