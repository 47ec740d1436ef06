"""kill -9 under load, again and again: every acknowledged write is there after the restart, and nothing is half there.

    several writers -> increasing numbers, each remembered when sent and when acknowledged
    kill -9 -> restart -> for every key:  last acknowledged <= what is there <= last sent
    pairs written by MULTI/EXEC are equal; deleted keys are gone or were written later

Rounds: KV_CRASH_ROUNDS (default 10). The seed is printed; KV_CRASH_SEED=<n> repeats the workload (the instant of the
kill is the machine's).
"""

import os
import random
import threading

import pytest

import node as nodes
from wire import Connection, encode, parse

ROUNDS = int(os.environ.get("KV_CRASH_ROUNDS", "10"))
SEED = int(os.environ.get("KV_CRASH_SEED", random.randrange(2**32)))
WRITERS = 8
KEYS_OF_A_WRITER = 40
PIPELINE = 8
DELETED = -1


class Writer(threading.Thread):
    """One connection that writes numbers, each larger than all before, to keys of its own."""

    # An error ends it as the end of the connection does: the disk may be what has gone, not the process.
    ends_at_an_error = False

    def __init__(self, number: int, port: int, next_value: int, seed: int):
        super().__init__()
        self.number, self.port, self.value = number, port, next_value
        self.random = random.Random(seed)
        self.sent: dict[str, list[int]] = {}
        self.acknowledged: dict[str, int] = {}
        self.failure = None
        self.acknowledged_count = 0

    def run(self):
        try:
            with Connection(self.port) as connection:
                while True:
                    self.one_batch(connection)
        except (ConnectionError, OSError):
            pass  # the kill
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def one_batch(self, connection: Connection):
        """Sends a few writes at once and takes their answers in order."""
        requests, expected = [], []
        for _ in range(self.random.randint(1, PIPELINE)):
            self.value += 1
            key = f"w{self.number}:{self.random.randrange(KEYS_OF_A_WRITER)}"
            action = self.random.randrange(10)
            if action < 6:
                padding = "x" * self.random.choice([0, 0, 10, 200, 3000])
                requests.append(encode("SET", key, f"{self.value}:{padding}"))
                expected.append([(key, self.value, b"+OK\r\n")])
            elif action < 7:
                requests.append(encode("DEL", key))
                expected.append([(key, DELETED, None)])
            elif action < 8:
                left, right = f"{key}:left", f"{key}:right"
                requests.append(encode("MSET", left, f"{self.value}:", right, f"{self.value}:"))
                expected.append([(left, self.value, b"+OK\r\n"), (right, self.value, b"+OK\r\n")])
            else:
                left, right = f"{key}:left", f"{key}:right"
                requests.append(encode("MULTI") + encode("SET", left, f"{self.value}:") + encode("SET", right, f"{self.value}:")
                                + encode("EXEC"))
                expected.append([(left, self.value, "transaction"), (right, self.value, "transaction")])
        for writes in expected:
            for key, value, _ in writes:
                self.sent.setdefault(key, []).append(value)
        connection.socket.sendall(b"".join(requests))
        for writes in expected:
            if writes[0][2] == "transaction":
                answers = [self.answer(connection) for _ in range(4)]
                assert answers[3] == b"*2\r\n+OK\r\n+OK\r\n", answers
            else:
                answer = self.answer(connection)
                assert writes[0][2] in (None, answer) and not answer.startswith(b"-"), answer
            for key, _, _ in writes:
                self.acknowledged[key] = self.acknowledged.get(key, 0) + 1
            self.acknowledged_count += 1

    def answer(self, connection: Connection) -> bytes:
        """The next reply."""
        answer = connection.reply()
        if self.ends_at_an_error and answer.startswith(b"-"):
            raise ConnectionError(answer)
        return answer


class Saver(threading.Thread):
    """One connection that asks for checkpoints all the time, so that kills fall into them."""

    ends_at_an_error = False

    def __init__(self, port: int):
        super().__init__()
        self.port, self.failure, self.saves = port, None, 0

    def run(self):
        try:
            with Connection(self.port) as connection:
                while True:
                    connection.send("SAVE")
                    answer = connection.reply()
                    if self.ends_at_an_error and answer.startswith(b"-"):
                        return
                    assert answer == b"+OK\r\n", answer
                    self.saves += 1
        except (ConnectionError, OSError):
            pass  # the kill
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure


def state_of(port: int, keys: list[str]) -> dict[str, int | None]:
    """The number that stands at each key now, None where there is none."""
    with Connection(port) as connection:
        for key in keys:
            connection.send("GET", key)
        values = [parse(connection.reply()) for _ in keys]
    return {key: None if value is None else int(value.split(b":")[0]) for key, value in zip(keys, values)}


def verify(before: dict, after: dict, writers: list[Writer]):
    """Compares what is there with what was sent and acknowledged since `before`."""
    for writer in writers:
        for key, sent in writer.sent.items():
            # What may be there: the last acknowledged write of this key, or any that was sent after it.
            acknowledged = writer.acknowledged.get(key, 0)
            earliest = sent[acknowledged - 1] if acknowledged else before.get(key)
            possible = [earliest, *sent[acknowledged:]]
            possible = [None if value == DELETED else value for value in possible]
            assert after[key] in possible, (
                f"key {key}: found {after[key]}, possible {possible}; "
                f"{acknowledged} of {len(sent)} writes of it were acknowledged"
            )
    for key in after:
        if key.endswith(":left"):
            right = key.removesuffix("left") + "right"
            assert after[key] == after[right], f"half a transaction: {key} {after[key]}, {right} {after[right]}"


def test_kill_nine_under_load_loses_no_acknowledged_write(make_node):
    print(f"KV_CRASH_SEED={SEED} KV_CRASH_ROUNDS={ROUNDS}")
    rng = random.Random(SEED)
    keys = [f"w{w}:{k}{side}" for w in range(WRITERS) for k in range(KEYS_OF_A_WRITER) for side in ("", ":left", ":right")]
    node = make_node(*([] if nodes.STAND_IN else ["--wal_file_size", "4mb", "--wal_buffer_size", "1mb"])).start()
    before: dict[str, int | None] = {}
    total = saves = 0
    for round_number in range(ROUNDS):
        writers = [Writer(w, node.port, round_number * 10_000_000, rng.randrange(2**32)) for w in range(WRITERS)]
        saver = Saver(node.port)
        for thread in [*writers, *([] if nodes.STAND_IN else [saver])]:
            thread.start()
        target = rng.randrange(1, 3000)
        nodes.until(lambda: sum(w.acknowledged_count for w in writers) >= target or any(w.failure for w in writers),
                    f"{target} acknowledged writes", 120)
        node.kill()
        for thread in [*writers, *([] if nodes.STAND_IN else [saver])]:
            thread.join()
            assert thread.failure is None, f"round {round_number}: {thread.failure!r}"
        saves += saver.saves
        if round_number % 3 == 2:
            # A second crash while it recovers (or just after it).
            node.launch()
            threading.Event().wait(rng.random() * 0.2)
            node.kill()
        node.start()
        after = state_of(node.port, keys)
        try:
            verify(before, after, writers)
        except AssertionError as lost:
            raise AssertionError(f"round {round_number}, KV_CRASH_SEED={SEED}: {lost}") from lost
        before = after
        total += sum(writer.acknowledged_count for writer in writers)
    print(f"{ROUNDS} rounds, {total} acknowledged batches of writes, {saves} checkpoints, none lost")
    assert total > ROUNDS and (saves > 0 or nodes.STAND_IN)


@pytest.mark.bowline
def test_versions_handed_out_before_a_crash_are_never_given_again(make_node):
    """History 11: versions seen at level `none`, lost in the crash, must not come back for other values."""
    node = make_node().start()
    highest = 0
    for _ in range(3):
        with node.client() as client:
            client.execute_command("BL.DURABILITY", "none")
            for i in range(200):
                client.set("k", i)
                reply = client.execute_command("BL.ENTRY", "k")
                pairs = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))
                version = int(pairs[b"version"])
                assert version > highest, "a version came again"
                highest = version
            node.kill()
        node.start()


def test_the_checker_of_this_file_sees_a_lost_write():
    """The test of the test: a lost, a half-applied and a foreign write must each be noticed."""

    def after_writes():
        writer = Writer(0, 0, 0, 0)
        writer.sent = {"w0:1": [1, 2, 3], "w0:2:left": [4], "w0:2:right": [4]}
        writer.acknowledged = {"w0:1": 2, "w0:2:left": 0, "w0:2:right": 0}
        return writer

    good = {"w0:1": 2, "w0:2:left": None, "w0:2:right": None}
    verify({}, good, [after_writes()])
    verify({}, {**good, "w0:1": 3}, [after_writes()])
    for wrong in ({"w0:1": 1}, {"w0:1": None}, {"w0:1": 99}, {"w0:2:left": 4}, {"w0:2:right": 7, "w0:2:left": 7}):
        with pytest.raises(AssertionError):
            verify({}, {**good, **wrong}, [after_writes()])
