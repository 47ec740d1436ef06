#!/usr/bin/env python3
"""Sends the same random commands to kv_server and to Debian's redis-server and compares the raw replies.

    tests/compat/differential.py --ours PORT --theirs PORT [--seed N] [--sequence K] [--commands 20000]

A difference is shrunk to the fewest steps that still show it and printed with the command that repeats it.
"""

import argparse
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compat import differences  # noqa: E402
from compat.commands import INTEGERS, KEYS, NO_INTEGERS, TEXTS, Generator  # noqa: E402
from wire import Connection, encode, parse  # noqa: E402

SEQUENCE_STEPS = 200
TOGETHER_MAX = 12
CLOSED = b"(closed)\r\n"
NULLS = (b"$-1\r\n", b"*-1\r\n", b"_\r\n")
SAME_ENTRIES = "WATCH goes by the entry here: a key that came and went or an APPEND of nothing is no change; Redis aborts"

Step = tuple[int, list[bytes]]


@dataclass
class Found:
    """The first step whose replies differ."""

    index: int
    arguments: list[bytes]
    ours: bytes
    theirs: bytes


class Side:
    """One server, emptied, reached over two connections. A connection that it closes is a reply like any other."""

    def __init__(self, port: int, protocol: int):
        self.port = port
        with Connection(port) as first:
            assert first.command("FLUSHALL") == b"+OK\r\n"
        self.protocol = protocol
        self.connections = [self._connect(), self._connect()]
        # By connection: each watched (database, key) and what our entry of it was then. Kept for kv_server only.
        self.watched: list[dict[tuple[bytes, bytes], list[bytes]]] = [{}, {}]

    def _connect(self) -> Connection:
        connection = Connection(self.port)
        if self.protocol == 3:
            assert not connection.command("HELLO", "3").startswith(b"-")
        return connection

    def close(self):
        """Ends both connections."""
        for connection in self.connections:
            connection.close()

    def run(self, connection_number: int, requests: list[list[bytes]]) -> list[bytes]:
        """Sends the requests at once, returns their raw replies; a SCAN that begins is followed to its end."""
        connection = self.connections[connection_number]
        connection.socket.sendall(b"".join(encode(*request) for request in requests))
        replies = []
        try:
            for _ in requests:
                replies.append(connection.reply())
        except TimeoutError:
            asked = "; ".join(printable(request) for request in requests)
            raise TimeoutError(f"the server on port {self.port} answers {len(replies)} of: {asked}") from None
        except ConnectionError:
            replies += [CLOSED] * (len(requests) - len(replies))
            self.connections[connection_number] = self._connect()
            self.watched[connection_number] = {}
        return [
            self._whole_scan(connection, request, reply) if request[0].upper() == b"SCAN" else reply
            for request, reply in zip(requests, replies)
        ]

    def note_watched(self, connection_number: int, keys: list[bytes]):
        """Keeps what the entries of these keys are, right after WATCH."""
        connection = self.connections[connection_number]
        database = re.search(rb" db=(\d+)", connection.command("CLIENT", "INFO")).group(1)
        for key in keys:
            self.watched[connection_number].setdefault((database, key), self._entry(connection, key))

    def watches_the_same(self, connection_number: int) -> bool:
        """Whether something is watched, and all of it is what it was: the same version, value and expiry, or nothing."""
        watched, connection = self.watched[connection_number], self._connect()
        try:
            for (database, key), entry in watched.items():
                if connection.command("SELECT", database) != b"+OK\r\n" or self._entry(connection, key) != entry:
                    return False
        finally:
            connection.close()
        return bool(watched)

    @staticmethod
    def _entry(connection: Connection, key: bytes) -> list[bytes]:
        return [connection.command("BL.ENTRY", key), connection.command("GET", key)]

    @staticmethod
    def _whole_scan(connection: Connection, request: list[bytes], reply: bytes) -> bytes:
        if request[1:2] != [b"0"]:
            return reply
        seen = set()
        while reply.startswith(b"*2\r\n"):
            cursor, keys = parse(reply)
            seen.update(keys)
            if cursor == b"0":
                return b"scanned " + repr(sorted(seen)).encode()
            reply = connection.command(request[0], cursor, *request[2:])
        return reply


def children(raw: bytes) -> list[bytes]:
    """The raw elements of an array reply."""
    connection = Connection.__new__(Connection)
    connection.buffer = bytearray(raw[raw.index(b"\r\n") + 2:])
    return [connection.reply() for _ in range(int(raw[1:raw.index(b"\r\n")]))]


class Comparison:
    """Runs steps on both servers and finds the first difference."""

    def __init__(self, ours: int, theirs: int, protocol: int):
        self.ports, self.protocol = (ours, theirs), protocol
        self.used: dict[str, int] = {}

    def first_difference(self, steps: list[Step], grouping_seed: int) -> Found | None:
        """Runs a whole sequence on emptied servers. Steps of one connection are sent in groups of random size."""
        rng = random.Random(grouping_seed)
        sides = [Side(port, self.protocol) for port in self.ports]
        queues: list[list[list[bytes]] | None] = [None, None]
        try:
            start = 0
            while start < len(steps):
                number, group = steps[start][0], []
                size = 1 if rng.random() < 0.4 else rng.randint(2, TOGETHER_MAX)
                while start + len(group) < len(steps) and len(group) < size and steps[start + len(group)][0] == number:
                    arguments = steps[start + len(group)][1]
                    if group and arguments[0].upper() == b"EXEC" and sides[0].watched[number]:
                        break
                    group.append(arguments)
                    if arguments[0].upper() in (b"SCAN", b"INCRBYFLOAT", b"WATCH"):
                        break
                unchanged = group[0][0].upper() == b"EXEC" and sides[0].watches_the_same(number)
                ours, theirs = (side.run(number, group) for side in sides)
                for offset, (arguments, left, right) in enumerate(zip(group, ours, theirs)):
                    if unchanged and offset == 0 and left.startswith(b"*") and left not in NULLS and right in NULLS:
                        self.used[SAME_ENTRIES] = self.used.get(SAME_ENTRIES, 0) + 1
                        raise differences.Diverged
                    if not self._agree(arguments, left, right, queues, number):
                        return Found(start + offset, arguments, left, right)
                    if arguments[0].upper() == b"INCRBYFLOAT" and left != right:
                        # Accepted; but the sums must not go on differing in every later reply.
                        ours_side, _ = sides
                        ours_side.run(number, [[b"SET", arguments[1], parse(right), b"KEEPTTL"]])
                    follow_watches(sides[0], number, arguments, left)
                start += len(group)
        except differences.Diverged:
            return None
        finally:
            for side in sides:
                side.close()
        return None

    def _agree(self, arguments, ours: bytes, theirs: bytes, queues, number: int) -> bool:
        name = arguments[0].upper()
        queue = queues[number]
        if theirs == b"+QUEUED\r\n" and queue is not None:
            queue.append(arguments)
        elif name == b"MULTI" and theirs == b"+OK\r\n":
            queues[number] = []
        elif name in (b"EXEC", b"DISCARD", b"RESET") and len(arguments) == 1:
            queues[number] = None
            if name == b"EXEC" and queue and theirs.startswith(b"*") and ours.startswith(b"*") and ours[:3] != b"*-1":
                left, right = children(ours), children(theirs)
                agreed = len(left) == len(right) == len(queue) and all(
                    differences.agree(command, one, other, self.used) for command, one, other in zip(queue, left, right)
                )
                if agreed and any(command[0].upper() == b"INCRBYFLOAT" and one != other
                                  for command, one, other in zip(queue, left, right)):
                    raise differences.Diverged
                return agreed
        return differences.agree(arguments, ours, theirs, self.used)


def follow_watches(side: Side, number: int, arguments: list[bytes], reply: bytes):
    """Keeps in mind what a connection watches, from our reply to a command."""
    name = arguments[0].upper()
    if name == b"WATCH" and reply == b"+OK\r\n":
        side.note_watched(number, arguments[1:])
    elif name in (b"DISCARD", b"UNWATCH") and reply == b"+OK\r\n":
        side.watched[number] = {}
    elif name == b"RESET" and reply == b"+RESET\r\n":
        side.watched[number] = {}
    elif name == b"EXEC" and reply != b"-ERR EXEC without MULTI\r\n":
        side.watched[number] = {}


def settled(steps: list[Step]) -> list[Step]:
    """Makes every key met before DBSIZE and RANDOMKEY: Redis counts what has expired and was not yet noticed, we never do."""
    result = []
    for connection, arguments in steps:
        if arguments[0].upper() in (b"DBSIZE", b"RANDOMKEY"):
            # A bent command may have any of the others as its key.
            result.append((connection, [b"EXISTS", *KEYS, *TEXTS, *INTEGERS, *NO_INTEGERS]))
        result.append((connection, arguments))
    return result


def shrink(comparison: Comparison, steps: list[Step], found: Found, grouping_seed: int) -> tuple[list[Step], Found]:
    """Removes steps in ever smaller pieces as long as a difference remains."""
    steps = steps[:found.index + 1]
    size = max(1, len(steps) // 2)
    while size >= 1:
        start, removed = 0, False
        while start < len(steps):
            shorter = steps[:start] + steps[start + size:]
            again = comparison.first_difference(shorter, grouping_seed) if shorter else None
            if again is not None:
                steps, found, removed = shorter[:again.index + 1], again, True
            else:
                start += size
        if not removed:
            size //= 2
    return steps, found


def printable(arguments: list[bytes]) -> str:
    """A command as one would type it, long arguments cut."""
    def quoted(word: bytes) -> str:
        text = repr(word)[2:-1]
        return f'"{text}"' if len(text) <= 80 else f'"{text[:60]}..." ({len(word)} bytes)'

    return " ".join(quoted(word) for word in arguments)


def kind_of(found: Found) -> tuple:
    """Differences of one kind are reported once: the same command, and replies that begin alike."""
    return found.arguments[0].upper(), found.ours[:6], found.theirs[:6]


def run(ours: int, theirs: int, seed: int, commands: int, only: int | None = None, report=print, limit: int = 1) -> int:
    """Runs sequences until `commands` were compared or `limit` kinds of differences were found; returns how many."""
    used: dict[str, int] = {}
    kinds = set()
    numbers = [only] if only is not None else range(max(1, commands // SEQUENCE_STEPS))
    report(f"seed {seed}: {len(numbers)} sequences of {SEQUENCE_STEPS} commands")
    for number in numbers:
        protocol = 2 + number % 2
        sequence_seed = seed * 1_000_003 + number
        steps = settled(Generator(sequence_seed).sequence(SEQUENCE_STEPS))
        comparison = Comparison(ours, theirs, protocol)
        found = comparison.first_difference(steps, sequence_seed)
        if found is not None:
            original = len(steps)
            steps, found = shrink(comparison, steps, found, sequence_seed)
            if kind_of(found) in kinds:
                continue
            kinds.add(kind_of(found))
            report(f"\nDIFFERENCE in sequence {number} (RESP{protocol}); {len(steps)} of {original} steps show it:")
            for connection, arguments in steps[-30:]:
                report(f"  {'AB'[connection]}: {printable(arguments)}")
            report(f"  ours:   {found.ours[:300]!r}\n  theirs: {found.theirs[:300]!r}")
            report(f"repeat: tests/compat/differential.py --ours PORT --theirs PORT --seed {seed} --sequence {number}")
            report("If it is meant to be, list it with a reason in tests/compat/differences.py.")
            if len(kinds) >= limit:
                break
        for reason, count in comparison.used.items():
            used[reason] = used.get(reason, 0) + count
    for reason, count in sorted(used.items()):
        report(f"accepted {count} times: {reason}")
    return len(kinds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=int, required=True, help="port of kv_server")
    parser.add_argument("--theirs", type=int, required=True, help="port of redis-server")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--sequence", type=int, help="only this sequence of the seed")
    parser.add_argument("--commands", type=int, default=20_000)
    parser.add_argument("--differences", type=int, default=1, help="stop after so many kinds of differences")
    options = parser.parse_args()
    found = run(options.ours, options.theirs, options.seed, options.commands, options.sequence, limit=options.differences)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
