"""Checkpoints from outside: what a restart finds, how long the log stays, what damage is refused."""

import shutil
import threading

import pytest
import redis

import node as nodes

DAMAGED = 4

pytestmark = pytest.mark.bowline


def persistence(client) -> dict:
    """INFO persistence."""
    return client.info("persistence")


def fill(client, count=2000, prefix="key", size=100):
    """Sets `count` keys, each to its own value."""
    with client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"{prefix}:{number}", f"{number}:" + "v" * size)
        pipeline.execute()


def expect(client, count=2000, prefix="key", size=100):
    """The keys that `fill` made are all there."""
    values = client.mget([f"{prefix}:{number}" for number in range(count)])
    assert values == [f"{number}:{'v' * size}".encode() for number in range(count)]


def exit_code(node) -> int:
    """The code that the process ends with by itself."""
    node.launch()
    return node.wait()


def test_a_restart_after_a_save_reads_the_block_file_and_not_the_log(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client)
        client.set("number", 12345)
        client.set("binary", bytes(range(256)))
        client.set("expires", "soon", pxat=4_000_000_000_123)
        client.execute_command("SAVE")
        assert persistence(client)["log_bytes"] < 10_000
        client.set("after", "the cut")
    node.kill()
    node.start()
    with node.client() as client:
        expect(client)
        assert client.mget("number", "binary", "after") == [b"12345", bytes(range(256)), b"the cut"]
        assert client.pexpiretime("expires") == 4_000_000_000_123
        assert client.object("encoding", "number") == b"int"
        assert persistence(client)["recovered_records"] < 10
        assert client.dbsize() == 2004


def test_what_was_removed_after_a_checkpoint_stays_removed(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client, 1000)
        client.execute_command("SAVE")
        client.delete(*[f"key:{number}" for number in range(500)])
        client.rename("key:500", "moved")
        client.set("key:0", "again")
        client.execute_command("SAVE")
        client.delete("key:501")
    for _ in range(2):
        node.kill()
        node.start()
        with node.client() as client:
            assert client.dbsize() == 500
            assert client.exists("key:1", "key:499", "key:500", "key:501") == 0
            assert client.mget("key:0", "moved", "key:502") == [b"again", b"500:" + b"v" * 100, b"502:" + b"v" * 100]


def test_emptied_and_exchanged_databases_come_back_as_they_were(make_node):
    node = make_node().start()
    with node.client(db=1) as one, node.client(db=2) as two, node.client(db=0) as zero:
        fill(one, 300, "one")
        fill(two, 200, "two")
        zero.execute_command("SAVE")
        zero.execute_command("SWAPDB", 1, 2)
        two.flushdb()
        two.set("new", "life")
        zero.execute_command("SAVE")
        node.kill()
        node.start()
        expect(node.client(db=1), 200, "two")
        with node.client(db=2) as client:
            assert client.keys() == [b"new"]
        with node.client() as client:
            client.flushall()
            client.set("only", 1)
        node.kill()
        node.start()
        with node.client() as client:
            assert (client.keys(), client.info("keyspace").keys()) == ([b"only"], {"db0"})
            client.execute_command("SAVE")
        node.kill()
        node.start()
        with node.client() as client:
            assert (client.keys(), client.info("keyspace").keys()) == ([b"only"], {"db0"})


def test_bgsave_answers_at_once_and_lastsave_tells_when_it_is_done(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client)
        before = persistence(client)["rdb_saves"]
        assert client.bgsave()
        nodes.until(lambda: persistence(client)["rdb_saves"] > before, "the end of the checkpoint")
        told = persistence(client)
        assert told["rdb_bgsave_in_progress"] == 0 and told["rdb_last_bgsave_status"] == "ok"
        assert client.lastsave().timestamp() == told["rdb_last_save_time"]
        assert client.execute_command("BGREWRITEAOF")


def test_save_waits_for_its_checkpoint_and_others_go_on_meanwhile(make_node):
    node = make_node().start()
    with node.client() as client, node.client() as other:
        fill(client, 20_000)
        answers = []
        saving = threading.Thread(target=lambda: answers.append(client.execute_command("SAVE")))
        saving.start()
        while saving.is_alive():
            assert other.set("meanwhile", 1)
        saving.join()
        assert answers == [True]
        assert persistence(other)["rdb_saves"] >= 1
        with other.pipeline(transaction=True) as transaction:
            transaction.execute_command("SAVE")
            with pytest.raises(redis.ResponseError):
                transaction.execute()


def test_the_log_stays_short_by_itself(make_node):
    node = make_node("--checkpoint-log-size", "1mb", "--wal_file_size", "1mb", "--wal_buffer_size", "64kb").start()
    with node.client() as client:
        for round_number in range(20):
            fill(client, 5000, f"r{round_number % 3}", 200)
        nodes.until(lambda: persistence(client)["log_bytes"] < 2_000_000, "a short log")
        assert persistence(client)["rdb_saves"] > 1
        nodes.until(lambda: len(nodes.log_files(node)) < 12, "log files to be given up")
    node.kill()
    node.start()
    with node.client() as client:
        for round_number in range(3):
            expect(client, 5000, f"r{round_number}", 200)


def test_a_shutdown_writes_a_checkpoint_unless_told_not_to(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client)
        client.shutdown(nosave=True)
    assert node.wait() == 0
    node.start()
    with node.client() as client:
        expect(client)
        assert persistence(client)["recovered_records"] >= 1
        client.shutdown()
    assert node.wait() == 0
    node.start()
    with node.client() as client:
        expect(client)
        assert persistence(client)["recovered_records"] == 0
    assert node.terminate() == 0


def test_a_missing_block_file_is_not_taken_for_an_empty_one(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client, 10)
        client.execute_command("SAVE")
    node.kill()
    (node.data / "store.blocks").rename(node.data / "elsewhere")
    assert exit_code(node) == DAMAGED
    assert "store.blocks" in node.printed() and "missing" in node.printed()
    (node.data / "elsewhere").rename(node.data / "store.blocks")
    node.start()


def test_a_missing_log_is_not_taken_for_an_empty_one(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client, 10)
        client.execute_command("SAVE")
    node.kill()
    shutil.move(node.data / "log", node.data / "elsewhere")
    assert exit_code(node) == DAMAGED
    assert "no log" in node.printed()


def test_an_older_block_file_is_not_taken_for_the_newest(make_node):
    node = make_node().start()
    blocks = node.data / "store.blocks"
    with node.client() as client:
        fill(client, 10)
        client.execute_command("SAVE")
        shutil.copy(blocks, node.data / "older")
        client.set("later", 1)
        client.execute_command("SAVE")
    node.kill()
    shutil.copy(node.data / "older", blocks)
    assert exit_code(node) == DAMAGED
    assert "later checkpoint" in node.printed()


def test_a_flipped_bit_in_the_block_file_is_found_and_named(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client, 1000)
        client.execute_command("SAVE")
    assert node.terminate() == 0
    blocks = node.data / "store.blocks"
    content = blocks.read_bytes()
    found = content.index(b"500:vvv")
    blocks.write_bytes(content[:found] + bytes([content[found] ^ 1]) + content[found + 1:])
    assert exit_code(node) == DAMAGED
    assert "store.blocks" in node.printed()


def test_rot_in_the_block_file_of_a_running_server_is_found_named_and_mended(make_node):
    node = make_node("--scrub-rate", "1gb").start()
    with node.client() as client:
        fill(client, 3000)
        client.execute_command("SAVE")
        nodes.until(lambda: persistence(client)["scrub_passes"] > 0, "a pass over the sound file")
        assert persistence(client)["scrub_damage"] == 0
        blocks = node.data / "store.blocks"
        found = blocks.read_bytes().index(b"500:vvv")
        with open(blocks, "r+b") as file:
            file.seek(found)
            file.write(b"X")
        nodes.until(lambda: persistence(client)["scrub_repairs"] == 1, "the file to be written anew")
        told = persistence(client)
        assert told["scrub_damage"] == 1 and "store.blocks is damaged at byte" in str(told["scrub_last_damage"])
        expect(client, 3000)
    node.kill()
    node.start()
    with node.client() as client:
        expect(client, 3000)


def test_a_checkpoint_with_nothing_new_writes_nothing(make_node):
    node = make_node().start()
    with node.client() as client:
        fill(client, 10)
        client.execute_command("SAVE")
        written = persistence(client)["block_file_bytes_written"]
        client.execute_command("SAVE")
        assert persistence(client)["block_file_bytes_written"] == written
