"""History 21: millions of keys go between two checkpoints. What must be remembered of them does not grow without bound."""

import pytest

import node as nodes
from wire import Connection, encode

# 16 bytes for each removed key: past this many a checkpoint begins by itself.
KEYS = 4_500_000
BATCH = 5_000

pytestmark = pytest.mark.bowline


def test_a_checkpoint_begins_by_itself_when_too_many_removals_wait_for_one(make_node):
    node = make_node("--checkpoint-interval", "0", "--checkpoint-log-size", "16gb").start()
    with Connection(node.port, 300) as connection, node.client(socket_timeout=300) as client:
        assert connection.command("BL.DURABILITY", "none") == b"+OK\r\n"
        batches = [[b"%d" % number for number in range(start, start + BATCH)] for start in range(0, KEYS, BATCH)]
        for names in batches:
            words = [b"v"] * (2 * len(names))
            words[::2] = names
            connection.send("MSET", *words)
            assert connection.reply() == b"+OK\r\n"
        client.execute_command("SAVE")
        before = client.info("persistence")["rdb_saves"]
        for names in batches:
            connection.socket.sendall(encode("DEL", *names))
            assert connection.reply() == b":%d\r\n" % len(names)
        nodes.until(lambda: client.info("persistence")["rdb_saves"] > before, "a checkpoint that nobody asked for", 120)
        assert client.dbsize() == 0
    node.kill()
    node.start()
    with node.client() as client:
        assert client.dbsize() == 0
