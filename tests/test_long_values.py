"""Long values from outside: they come, stay and leave in chunks, and no byte of them is lost or mixed up."""

import os
import threading

import pytest
import redis

import node as nodes

pytestmark = pytest.mark.bowline

CHUNK = 64 * 1024
MB = 1 << 20


def value(length: int) -> bytes:
    """So many bytes, of which hardly two chunks are alike."""
    piece = os.urandom(min(length, 3 * MB + 17))
    return (piece * (length // max(len(piece), 1) + 1))[:length]


def test_values_of_all_lengths_come_back_as_they_went(make_node):
    with make_node().start().client() as client:
        lengths = [CHUNK + around for around in (-2, -1, 0, 1, 2)]
        # What fills one write of the server, or several, to the last byte.
        lengths += [count * CHUNK + around for count in (14, 15, 16, 17, 31, 32, 47) for around in (-1, 0, 1)]
        for length in lengths:
            sent = value(length)
            client.set("key", sent)
            assert client.get("key") == sent, length
            assert client.strlen("key") == length
        pipeline = client.pipeline(transaction=False)
        for length in lengths:
            pipeline.set(f"key:{length}", value(length)).get(f"key:{length}").strlen(f"key:{length}")
        answers = pipeline.execute()
        assert [len(answer) for answer in answers[1::3]] == lengths
        assert answers[2::3] == lengths


def test_a_long_value_survives_kill_9_whatever_was_done_to_it(make_node):
    node = make_node().start()
    sent = bytearray(value(30 * MB + 5))
    with node.client() as client:
        client.set("long", bytes(sent))
        client.copy("long", "copy")
        client.execute_command("SAVE")
        client.setrange("long", 10 * MB - 3, b"over the end of a chunk")
        client.append("long", b"x" * 100_000)
        client.append("long", b"y")
        client.rename("long", "renamed")
        assert client.getrange("renamed", 10 * MB - 3, 10 * MB + 19) == b"over the end of a chunk"
    changed = sent[:]
    changed[10 * MB - 3:10 * MB + 20] = b"over the end of a chunk"
    changed += b"x" * 100_000 + b"y"
    for _ in range(2):
        node.kill()
        node.start()
        with node.client() as client:
            assert client.get("copy") == bytes(sent)
            assert client.get("renamed") == bytes(changed)
            assert client.exists("long") == 0
            client.execute_command("SAVE")


def test_a_checkpoint_under_changes_of_a_long_value_loses_none(make_node):
    node = make_node().start()
    expected = bytearray(value(20 * MB))
    with node.client() as client:
        client.set("long", bytes(expected))
        for round_number in range(4):
            client.execute_command("BGSAVE")
            for number in range(60):
                offset = (number * 7919 * 64 + round_number) % (20 * MB - 10)
                text = b"%04d-%04d" % (round_number, number)
                client.setrange("long", offset, text)
                expected[offset:offset + len(text)] = text
            nodes.until(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the end of a checkpoint")
        assert client.get("long") == bytes(expected)
    node.kill()
    node.start()
    with node.client() as client:
        assert client.get("long") == bytes(expected)


def test_long_values_in_transactions_and_with_conditions(make_node):
    with make_node().start().client() as client:
        first, second = value(3 * MB), value(2 * MB + 1)
        with client.pipeline(transaction=True) as transaction:
            transaction.set("a", first).append("a", second).get("a").mset({"b": second, "c": b"1"}).getset("b", first)
            answers = transaction.execute()
        assert answers == [True, len(first) + len(second), first + second, True, second]
        assert client.set("d", second, nx=True) and client.set("d", first, nx=True) is None
        assert client.execute_command("SET", "d", b"short", "IFEQ", second) in (b"OK", True)
        assert client.set("a", second, get=True) == first + second
        # A long argument that is no value: a key, an error.
        assert client.get(first) is None
        with pytest.raises(redis.ResponseError):
            client.execute_command("INCRBY", "c", first)
        with pytest.raises(redis.ResponseError):
            client.execute_command("NOSUCHCOMMAND", first)
        assert client.getdel("b") == first
        assert client.memory_usage("a") > 2 * MB


def test_a_slow_reader_of_a_long_value_holds_nobody_up_and_gets_it_whole(make_node):
    node = make_node().start()
    sent = value(40 * MB)
    with node.client() as client, node.client() as other:
        client.set("long", sent)
        reader = node.client()
        connection = reader.connection_pool.get_connection()
        connection.send_command("GET", "long")
        other.setrange("long", 5 * MB, b"changed meanwhile")
        other.delete("long")
        for number in range(200):
            assert other.set(f"key:{number}", number)
        assert connection.read_response() == sent
        reader.close()


def test_many_clients_send_and_read_long_values_at_once(make_node):
    node = make_node().start()
    failures = []

    def work(number: int):
        with node.client() as client:
            for turn in range(4):
                sent = value((number + 1) * MB + turn)
                client.set(f"key:{number}", sent)
                client.copy(f"key:{number}", f"copy:{number}", replace=True)
                if client.get(f"copy:{number}") != sent or client.get(f"key:{number}") != sent:
                    failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
