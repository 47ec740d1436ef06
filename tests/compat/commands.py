"""Random sequences of commands, valid and not: every option, wrong arities, wrong numbers, edge integers, expiry.

A *step* is (connection, arguments); steps of one connection may be sent together. What only one of the two servers has
(SET IFEQ, CLIENT SETINFO, our dotted commands) is not generated: see differences.py.
"""

import random
import time

KEYS = [b"a", b"b", b"c", b"d", b"e", b"key:1", b"key:2", b"key:10", b"n", b"f", b"", b"\x00bin\r\n", b"x" * 100]
INTEGERS = [
    b"0", b"1", b"-1", b"2", b"10", b"42", b"-42", b"9999", b"10000", b"2147483647", b"-2147483648", b"2147483648",
    b"4294967296", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"-9223372036854775809",
    b"9223372036854775806",
]
NO_INTEGERS = [b"", b"abc", b"1.5", b" 1", b"1 ", b"+1", b"007", b"-0", b"0x10", b"1e3", b"\x00", b"--1", b"-"]
FLOATS = [b"0", b"0.5", b"-0.25", b"1.75", b"3", b"3.0e3", b"-1e2", b"1e17", b"100.125", b"-5"]
NO_FLOATS = [b"abc", b"", b" 1", b"1 ", b"nan", b"inf", b"-inf", b"1e5000", b"0x", b"1.5.5", b"--1"]
PATTERNS = [b"*", b"a*", b"key:*", b"key:?", b"[a-c]", b"[^a]", b"\\*", b"*:1*", b"?", b"", b"[", b"k[e-]y*", b"**e*"]
TEXTS = [b"", b"v", b"value", b"hello world", b"x" * 44, b"y" * 45, b"z" * 200, b"ohmytext", b"mynewtext", b"\xff\x00\r\n"]
SECONDS = [b"0", b"-1", b"-100", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775",
           b"abc", b"", b"1.5"]


class Generator:
    """Makes steps from a seed. The same seed makes the same steps, apart from absolute times, which start at `now`."""

    def __init__(self, seed: int, now: int | None = None):
        self.random = random.Random(seed)
        self.now = int(now or time.time())

    def sequence(self, length: int) -> list[tuple[int, list[bytes]]]:
        """`length` steps on two connections, in runs on the same one."""
        steps, connection = [], 0
        while len(steps) < length:
            if self.random.random() < 0.1:
                connection = 1 - connection
            if self.random.random() < 0.04:
                steps += self.transaction(connection)
            else:
                steps.append((connection, self.command()))
        return steps

    def transaction(self, connection: int) -> list[tuple[int, list[bytes]]]:
        """A transaction that mostly comes to its EXEC, now and then with a watched key that the other side may change."""
        steps = [(connection, [b"WATCH", *self.keys()])] if self.random.random() < 0.4 else []
        if self.random.random() < 0.3:
            steps.append((1 - connection, self.plain_command()))
        steps.append((connection, [b"MULTI"]))
        steps += [(connection, self.plain_command()) for _ in range(self.random.randint(0, 6))]
        if self.random.random() < 0.2:
            steps.append((1 - connection, self.plain_command()))
        return [*steps, (connection, [b"EXEC"])]

    def plain_command(self) -> list[bytes]:
        """A data command that is not bent."""
        return self.random.choices(COMMANDS[:DATA_ROWS], WEIGHTS[:DATA_ROWS])[0](self)

    def command(self) -> list[bytes]:
        """One command, now and then bent."""
        arguments = self.random.choices(COMMANDS, WEIGHTS)[0](self)
        # A bent SHUTDOWN or CLIENT KILL could end the server or the connection under the test, DEBUG SLEEP stop it.
        bend = 1.0 if arguments[0] in (b"SHUTDOWN", b"DEBUG") or arguments[1:2] == [b"KILL"] else self.random.random()
        if bend < 0.02 and len(arguments) > 1:
            arguments.pop(self.random.randrange(1, len(arguments)))
        elif bend < 0.04:
            arguments.insert(self.random.randint(1, len(arguments)), self.pick(TEXTS + INTEGERS))
        elif bend < 0.06 and len(arguments) > 1:
            arguments[self.random.randrange(1, len(arguments))] = self.pick(TEXTS + NO_INTEGERS)
        if self.random.random() < 0.2:
            arguments[0] = arguments[0].lower()
        return arguments

    def pick(self, options):
        return self.random.choice(options)

    def maybe(self, probability: float, *words: bytes) -> list[bytes]:
        return list(words) if self.random.random() < probability else []

    def key(self) -> bytes:
        return self.pick(KEYS)

    def keys(self) -> list[bytes]:
        return [self.key() for _ in range(self.random.randint(1, 4))]

    def integer(self) -> bytes:
        kind = self.random.random()
        if kind < 0.5:
            return str(self.random.randint(-20, 20)).encode()
        return self.pick(INTEGERS) if kind < 0.9 else self.pick(NO_INTEGERS)

    def small(self) -> bytes:
        """An index or offset."""
        return str(self.random.randint(-12, 12)).encode() if self.random.random() < 0.85 else self.pick(INTEGERS + NO_INTEGERS)

    def float(self) -> bytes:
        return self.pick(FLOATS) if self.random.random() < 0.85 else self.pick(NO_FLOATS)

    def value(self) -> bytes:
        kind = self.random.random()
        if kind < 0.35:
            return self.integer()
        if kind < 0.45:
            return self.float()
        if kind < 0.95:
            return self.pick(TEXTS)
        return self.random.randbytes(self.random.choice([1, 100, 5000, 70_000]))

    def seconds(self) -> bytes:
        """A relative time: rarely the same twice, so that GT and LT never hang on a single millisecond."""
        return str(self.random.randint(10, 100_000) * 10).encode() if self.random.random() < 0.7 else self.pick(SECONDS)

    def milliseconds(self) -> bytes:
        value = self.seconds()
        return value if value in SECONDS else value + b"000"

    def instant(self, unit: int) -> bytes:
        """An absolute time in seconds (unit 1) or milliseconds (1000): future, past, or nonsense."""
        kind = self.random.random()
        if kind < 0.6:
            return str((self.now + self.random.choice([500, 5000, 10**6])) * unit).encode()
        return self.pick([b"1", b"1000", b"0", b"-5", b"9223372036854775807", b"abc", b""])

    def expiry(self) -> list[bytes]:
        word = self.pick([b"EX", b"PX", b"EXAT", b"PXAT"])
        amount = {b"EX": self.seconds, b"PX": self.milliseconds, b"EXAT": lambda: self.instant(1),
                  b"PXAT": lambda: self.instant(1000)}[word]()
        return [word if self.random.random() < 0.9 else word.lower(), amount]


def set_with_options(g: Generator) -> list[bytes]:
    """SET with any mixture of its options, also those that exclude each other."""
    arguments = [b"SET", g.key(), g.value()]
    options = [
        *([[b"NX"]] if g.random.random() < 0.15 else []), *([[b"XX"]] if g.random.random() < 0.15 else []),
        *([[b"GET"]] if g.random.random() < 0.2 else []), *([[b"KEEPTTL"]] if g.random.random() < 0.1 else []),
        *([g.expiry()] if g.random.random() < 0.3 else []), *([g.expiry()] if g.random.random() < 0.03 else []),
        *([[g.pick([b"BOGUS", b"EX", b""])]] if g.random.random() < 0.03 else []),
    ]
    g.random.shuffle(options)
    return arguments + [word for option in options for word in option]


def getex(g):
    kind = g.random.random()
    tail = g.expiry() if kind < 0.5 else [b"PERSIST"] if kind < 0.7 else []
    return [b"GETEX", g.key(), *tail, *g.maybe(0.05, b"PERSIST")]


def expire(g):
    word = g.pick([b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"])
    amount = {b"EXPIRE": g.seconds, b"PEXPIRE": g.milliseconds, b"EXPIREAT": lambda: g.instant(1),
              b"PEXPIREAT": lambda: g.instant(1000)}[word]()
    options = [g.pick([b"NX", b"XX", b"GT", b"LT", b"nx", b"gt", b"WRONG"]) for _ in range(g.pick([0, 0, 1, 1, 1, 2]))]
    return [word, g.key(), amount, *options]


def setrange(g):
    offset = g.pick([g.small(), b"0", b"5", b"100", b"1500000", b"600000000"])
    return [b"SETRANGE", g.key(), offset, g.pick(TEXTS)]


def lcs(g):
    return [b"LCS", g.key(), g.key(), *g.maybe(0.25, b"LEN"), *g.maybe(0.4, b"IDX"),
            *g.maybe(0.2, b"MINMATCHLEN", g.small()), *g.maybe(0.2, b"WITHMATCHLEN"), *g.maybe(0.05, b"BOGUS")]


def scan(g):
    """A whole iteration when the cursor is 0: the runner follows it and compares what was seen."""
    cursor = b"0" if g.random.random() < 0.9 else g.pick([b"abc", b"-1", b"", b"1.5", b"18446744073709551616"])
    return [b"SCAN", cursor, *g.maybe(0.5, b"MATCH", g.pick(PATTERNS)), *g.maybe(0.5, b"COUNT", g.pick([b"1", b"10", b"1000", b"0", b"-1", b"x"])),
            *g.maybe(0.2, b"TYPE", g.pick([b"string", b"list", b"STRING", b"nonsense"])), *g.maybe(0.03, b"BOGUS")]


def copy(g):
    return [b"COPY", g.key(), g.key(), *g.maybe(0.3, b"DB", g.pick([b"0", b"1", b"2", b"99", b"-1", b"x"])), *g.maybe(0.4, b"REPLACE")]


def client(g):
    return g.pick([
        [b"CLIENT", b"GETNAME"], [b"CLIENT", b"SETNAME", g.pick([b"me", b"worker-1", b"two words", b"", b"new\nline"])],
        [b"CLIENT", b"ID"], [b"CLIENT", b"NO-EVICT", g.pick([b"ON", b"OFF", b"MAYBE"])], [b"CLIENT", b"REPLY", b"ON"],
        [b"CLIENT", b"KILL", b"ID", b"99999999"], [b"CLIENT", b"KILL", b"1.2.3.4:5"], [b"CLIENT", b"KILL", b"ID", b"x"],
        [b"CLIENT", b"UNPAUSE"], [b"CLIENT", b"PAUSE", b"x"], [b"CLIENT", b"NOSUCH"], [b"CLIENT"],
        [b"CLIENT", b"REPLY", b"MAYBE"], [b"CLIENT", b"LIST", b"TYPE", b"nonsense"], [b"CLIENT", b"INFO", b"extra"],
    ])


def object_or_memory(g):
    return g.pick([
        [b"OBJECT", b"ENCODING", g.key()], [b"OBJECT", b"REFCOUNT", g.key()], [b"OBJECT", b"IDLETIME", g.key()],
        [b"OBJECT", b"FREQ", g.key()], [b"OBJECT", b"NOSUCH", g.key()], [b"OBJECT"], [b"MEMORY", b"USAGE", g.key()],
        [b"MEMORY", b"USAGE", g.key(), b"SAMPLES", g.small()], [b"MEMORY", b"NOSUCH"],
    ])


def server(g):
    return g.pick([
        [b"PING"], [b"PING", g.value()], [b"ECHO", g.value()], [b"TIME"], [b"LASTSAVE"], [b"AUTH", b"x"], [b"AUTH", b"a", b"b"],
        [b"AUTH", b"a", b"b", b"c"], [b"HELLO", b"9"], [b"HELLO", b"x"], [b"HELLO", b"2", b"BOGUS"], [b"NOSUCHCOMMAND"],
        [b"NOSUCHCOMMAND", g.value(), g.value()], [b"nosuch\r\n+OK", b"x\r\ny"], [b""], [b"x" * 200, b"y" * 200],
        [b"COMMAND", b"GETKEYS", b"GET", g.key()], [b"COMMAND", b"GETKEYS", b"MSET", g.key(), b"1", g.key(), b"2"],
        [b"COMMAND", b"GETKEYS", b"PING"], [b"COMMAND", b"GETKEYS", b"NOSUCH"], [b"COMMAND", b"GETKEYS", b"GET"],
        [b"COMMAND", b"NOSUCH"], [b"CONFIG", b"GET"], [b"CONFIG", b"NOSUCH"], [b"CONFIG", b"SET", b"slowlog-max-len"],
        [b"CONFIG", b"SET", b"no-such-setting", b"1"], [b"CONFIG", b"GET", b"maxmemory-policy"], [b"CONFIG", b"RESETSTAT"],
        [b"SLOWLOG", b"NOSUCH"], [b"SLOWLOG", b"GET", b"x"], [b"LATENCY", b"NOSUCH"], [b"ROLE"], [b"ROLE", b"x"],
        [b"SHUTDOWN", b"BOGUS"], [b"DEBUG", b"SLEEP", b"0"], [b"RESET"],
        [b"DEBUG"], [b"DEBUG", b"SLEEP"], [b"DEBUG", b"SLEEP", b"0", g.value()], [b"DEBUG", b"NOSUCH\n\xff", b"x"],
    ])


def database(g):
    number = g.pick([b"0", b"1", b"2", b"15"]) if g.random.random() < 0.8 else g.pick([b"16", b"-1", b"x", b"", b"99999999999"])
    return g.pick([
        [b"SELECT", number], [b"SELECT", b"0"], [b"SELECT", b"0"], [b"SWAPDB", number, g.pick([b"0", b"1", b"x", b"77"])],
        [b"MOVE", g.key(), number], [b"FLUSHDB", *g.maybe(0.5, g.pick([b"ASYNC", b"SYNC", b"WRONG"]))],
        [b"FLUSHALL", *g.maybe(0.5, g.pick([b"ASYNC", b"SYNC", b"WRONG"]))],
    ])


def transaction(g):
    return g.pick([[b"MULTI"], [b"MULTI"], [b"EXEC"], [b"EXEC"], [b"EXEC"], [b"DISCARD"], [b"WATCH", *g.keys()],
                   [b"WATCH", *g.keys()], [b"UNWATCH"]])


# (weight, what it makes): reads and writes of strings most often, administration seldom.
TABLE = [
    (14, set_with_options),
    (10, lambda g: [b"GET", g.key()]),
    (2, lambda g: [b"GETDEL", g.key()]),
    (4, getex),
    (3, lambda g: [b"GETSET", g.key(), g.value()]),
    (4, lambda g: [b"MGET", *g.keys()]),
    (4, lambda g: [b"MSET", *[word for key in g.keys() for word in (key, g.value())]]),
    (3, lambda g: [b"MSETNX", *[word for key in g.keys() for word in (key, g.value())]]),
    (3, lambda g: [b"SETNX", g.key(), g.value()]),
    (2, lambda g: [b"SETEX", g.key(), g.seconds(), g.value()]),
    (2, lambda g: [b"PSETEX", g.key(), g.milliseconds(), g.value()]),
    (6, lambda g: [g.pick([b"INCR", b"DECR"]), g.key()]),
    (6, lambda g: [g.pick([b"INCRBY", b"DECRBY"]), g.key(), g.integer()]),
    (4, lambda g: [b"INCRBYFLOAT", g.key(), g.float()]),
    (5, lambda g: [b"APPEND", g.key(), g.value()]),
    (3, lambda g: [b"STRLEN", g.key()]),
    (5, lambda g: [g.pick([b"GETRANGE", b"SUBSTR"]), g.key(), g.small(), g.small()]),
    (4, setrange),
    (3, lcs),
    (4, lambda g: [g.pick([b"DEL", b"UNLINK"]), *g.keys()]),
    (4, lambda g: [g.pick([b"EXISTS", b"TOUCH"]), *g.keys()]),
    (8, expire),
    (8, lambda g: [g.pick([b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"]), g.key()]),
    (3, lambda g: [b"PERSIST", g.key()]),
    (2, lambda g: [b"TYPE", g.key()]),
    (3, lambda g: [b"KEYS", g.pick(PATTERNS)]),
    (3, scan),
    (1, lambda g: [b"RANDOMKEY"]),
    (4, lambda g: [g.pick([b"RENAME", b"RENAMENX"]), g.key(), g.key()]),
    (4, copy),
    (2, lambda g: [b"DBSIZE"]),
    (4, database),
    (2, transaction),
    (2, object_or_memory),
    (2, client),
    (4, server),
]
# The rows before `database`: what a transaction usually holds.
DATA_ROWS = next(i for i, (_, make) in enumerate(TABLE) if make is database)
WEIGHTS = [weight for weight, _ in TABLE]
COMMANDS = [make for _, make in TABLE]
