"""Random commands from several connections, with checkpoints, expiry and restarts of every kind, compared with a model.

    workers (a connection and databases, or a range of keys, of its own) -> every reply is what the model says
    meanwhile: SAVE, BGSAVE; then kill -9, SIGTERM, SHUTDOWN, SHUTDOWN NOSAVE -> restart
    -> each worker's keys are those of its model after its acknowledged commands and some first part of the others

Twice: with everything in memory, and with values larger than memory (policy "tier").

Seconds, for both together: SOAK_SECONDS (default 20). The seed is printed; SOAK_SEED=<n> repeats the workload, not the instants.
"""

import copy
import os
import random
import threading
import time

import pytest

import node as nodes
from wire import Connection, encode, parse

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))
# Workers of the first kind have two databases each, those of the second share one.
WORKERS_WITH_DATABASES, WORKERS_IN_ONE = 5, 3
SHARED_DATABASE = 2 * WORKERS_WITH_DATABASES
KEYS, TIMED_KEYS, COUNTERS = 60, 20, 5
BATCH = 12
# A key that goes within this time of a look at it may be seen or not.
HOUR_MS = 3_600_000

pytestmark = pytest.mark.bowline

OK = "OK"


def now_ms() -> float:
    """The clock that the server sees too."""
    return time.time() * 1000


class Model:
    """The databases of one worker: for each its keys, each with a value and when it goes (None: never)."""

    def __init__(self, prefix: bytes, databases: int):
        self.prefix = prefix
        self.keys: list[dict[bytes, tuple[bytes, int | None]]] = [{} for _ in range(databases)]

    def run(self, database: int, words: tuple) -> object:
        """What the command replies; `...` where it depends on when exactly it runs."""
        name, arguments = words[0], words[1:]
        return getattr(self, f"do_{name.lower()}")(self.keys[database], *arguments)

    def do_set(self, keys, key, value, *options):
        """SET key value [PXAT ms] [NX] [XX] [GET]."""
        old = keys.get(key)
        if ("NX" in options and old) or ("XX" in options and not old):
            return None
        keys[key] = (value, int(options[1]) if "PXAT" in options else None)
        return OK

    def do_get(self, keys, key):
        """GET key."""
        if key.startswith(self.prefix + b"t"):
            return Timed(keys.get(key))
        return keys[key][0] if key in keys else None

    def do_getdel(self, keys, key):
        """GETDEL key."""
        return keys.pop(key)[0] if key in keys else None

    def do_append(self, keys, key, value):
        """APPEND key value."""
        old, at = keys.get(key, (b"", None))
        keys[key] = (old + value, at)
        return len(old) + len(value)

    def do_setrange(self, keys, key, offset, value):
        """SETRANGE key offset value."""
        old, at = keys.get(key, (b"", None))
        keys[key] = (old[:offset].ljust(offset, b"\0") + value + old[offset + len(value):], at)
        return len(keys[key][0])

    def do_strlen(self, keys, key):
        """STRLEN key."""
        return len(keys[key][0]) if key in keys else 0

    def do_incrby(self, keys, key, number):
        """INCRBY key number."""
        old, at = keys.get(key, (b"0", None))
        keys[key] = (b"%d" % (int(old) + number), at)
        return int(old) + number

    def do_del(self, keys, *names):
        """DEL key ..., of keys that do not expire."""
        return sum(keys.pop(name, None) is not None for name in names)

    def do_unlink(self, keys, name):
        """UNLINK of a key that may have expired."""
        keys.pop(name, None)
        return ...

    def do_exists(self, keys, *names):
        """EXISTS key ..."""
        return sum(name in keys for name in names)

    def do_mset(self, keys, *pairs):
        """MSET key value ..."""
        keys.update((key, (value, None)) for key, value in zip(pairs[::2], pairs[1::2]))
        return OK

    def do_mget(self, keys, *names):
        """MGET key ..."""
        return [keys[name][0] if name in keys else None for name in names]

    def do_rename(self, keys, old, new):
        """RENAME key newkey; the error of a key that is not there."""
        if old not in keys:
            return RuntimeError("ERR no such key")
        keys[new] = keys.pop(old)
        return OK

    def do_copy(self, keys, old, new, _replace):
        """COPY source destination REPLACE."""
        if old == new:
            return RuntimeError("ERR source and destination objects are the same")
        if old not in keys:
            return 0
        keys[new] = keys[old]
        return 1

    def do_pexpireat(self, keys, key, at):
        """PEXPIREAT key ms, far in the future."""
        if key not in keys:
            return 0
        keys[key] = (keys[key][0], at)
        return 1

    def do_persist(self, keys, key):
        """PERSIST key."""
        if key not in keys or keys[key][1] is None:
            return 0
        keys[key] = (keys[key][0], None)
        return 1

    def do_flushdb(self, keys):
        """FLUSHDB."""
        keys.clear()
        return OK

    def do_swapdb(self, _, first, second):
        """SWAPDB of the worker's own two databases."""
        assert first != second
        self.keys.reverse()
        return OK


class Timed:
    """The reply of GET for a key that goes soon: it depends on when."""

    def __init__(self, entry):
        self.entry = entry

    def allows(self, found, sent_ms: float, received_ms: float) -> bool:
        """Whether `found` may be the reply of a request that was on its way between these moments."""
        value, at = self.entry or (None, None)
        if at is None or received_ms < at:
            return found == value
        return found is None if sent_ms >= at else found in (None, value)


def agrees(expected, found, sent_ms: float, received_ms: float) -> bool:
    """Whether a reply is what the model says."""
    if expected is ...:
        return not isinstance(found, RuntimeError)
    if isinstance(expected, Timed):
        return expected.allows(found, sent_ms, received_ms)
    if isinstance(expected, RuntimeError):
        return isinstance(found, RuntimeError) and str(found) == str(expected)
    if isinstance(expected, list):
        return isinstance(found, list) and all(agrees(*pair, sent_ms, received_ms) for pair in zip(expected, found, strict=True))
    return type(expected) is type(found) and expected == found


class Worker(threading.Thread):
    """One connection with keys of its own. It ends when told to, or when its connection does."""

    def __init__(self, number: int, port: int, model: Model, seed: int, sizes: list[float]):
        super().__init__()
        self.number, self.port, self.model, self.sizes = number, port, model, sizes
        self.random = random.Random(seed)
        self.is_shared = number >= WORKERS_WITH_DATABASES
        self.stop = threading.Event()
        self.failure = None
        self.commands = 0
        # What was sent and not answered: requests of (database, words), one or those of a transaction.
        self.unanswered: list[list[tuple[int, tuple]]] = []

    def real_database(self, database: int) -> int:
        """The number that the server knows the worker's database by."""
        return SHARED_DATABASE if self.is_shared else 2 * self.number + database

    def run(self):
        try:
            with Connection(self.port, 60) as connection:
                while not self.stop.is_set():
                    self.one_batch(connection)
        except (ConnectionError, OSError):
            pass  # the end of the server
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def key(self) -> bytes:
        """A key that does not expire soon."""
        return self.model.prefix + b"k%d" % self.random.randrange(KEYS)

    def some_value(self) -> bytes:
        """Mostly a short value, now and then one of many blocks."""
        size = self.random.choices([8, 100, 3000, 60_000, 400_000], self.sizes)[0]
        return self.random.randbytes(self.random.randrange(size))

    def one_command(self) -> tuple:
        """A random command."""
        rng, key = self.random, self.key()
        timed = self.model.prefix + b"t%d" % rng.randrange(TIMED_KEYS)
        counter = self.model.prefix + b"c%d" % rng.randrange(COUNTERS)
        actions = {
            lambda: ("SET", key, self.some_value()): 20,
            lambda: ("SET", key, self.some_value(), rng.choice(["NX", "XX"])): 5,
            lambda: ("SET", timed, self.some_value(), "PXAT", int(now_ms()) + rng.randrange(1, 3000)): 10,
            lambda: ("GET", timed): 5,
            lambda: ("UNLINK", timed): 2,
            lambda: ("GET", key): 15,
            lambda: ("GETDEL", key): 3,
            lambda: ("APPEND", key, rng.randbytes(rng.randrange(200))): 8,
            lambda: ("SETRANGE", key, rng.randrange(300), rng.randbytes(rng.randrange(1, 50))): 4,
            lambda: ("STRLEN", key): 2,
            lambda: ("INCRBY", counter, rng.randrange(-5, 100)): 10,
            lambda: ("DEL", *{self.key() for _ in range(rng.randrange(1, 5))}): 5,
            lambda: ("EXISTS", key, self.key()): 2,
            lambda: ("MSET", *[word for name in {self.key() for _ in range(4)} for word in (name, self.some_value())]): 4,
            lambda: ("MGET", key, self.key(), counter): 4,
            lambda: ("RENAME", key, self.key()): 5,
            lambda: ("COPY", key, self.key(), "REPLACE"): 4,
            lambda: ("PEXPIREAT", key, int(now_ms()) + HOUR_MS * 2): 4,
            lambda: ("PERSIST", key): 3,
            lambda: ("FLUSHDB",): 0 if self.is_shared else 0.1,
            lambda: ("SWAPDB", 2 * self.number, 2 * self.number + 1): 0 if self.is_shared else 0.3,
        }
        return rng.choices(list(actions), list(actions.values()))[0]()

    def one_batch(self, connection: Connection):
        """Sends some requests at once, then compares their replies in order."""
        requests, sent = [], []
        for _ in range(self.random.randint(1, BATCH)):
            database = self.random.randrange(len(self.model.keys))
            count = self.random.choices([1, 2, 5], [90, 7, 3])[0]
            request = [(database, self.one_command()) for _ in range(count)]
            requests.append(request)
            sent.append(encode("SELECT", self.real_database(database)))
            words = [encode(*words) for _, words in request]
            sent.append(words[0] if count == 1 else encode("MULTI") + b"".join(words) + encode("EXEC"))
        self.unanswered = requests
        sent_ms = now_ms()
        # Replies are taken while requests are still sent: neither side may wait for the other for ever.
        sender = threading.Thread(target=send_all, args=(connection, b"".join(sent)))
        sender.start()
        try:
            for request in requests:
                self.take_reply(connection, request, sent_ms)
                self.unanswered = self.unanswered[1:]
        finally:
            sender.join()

    def take_reply(self, connection: Connection, request, sent_ms: float):
        """Compares the replies to one request with the model."""
        assert connection.reply() == b"+OK\r\n"
        if len(request) > 1:
            queued = [connection.reply() for _ in range(1 + len(request))]
            assert queued == [b"+OK\r\n", *[b"+QUEUED\r\n"] * len(request)], queued
        found = parse(connection.reply())
        found = found if len(request) > 1 else [found]
        received_ms = now_ms()
        for (database, words), answer in zip(request, found, strict=True):
            expected = self.model.run(database, words)
            assert agrees(expected, answer, sent_ms, received_ms), (
                f"worker {self.number}, {words[0]} {words[1:2]}: {shortened(answer)} instead of {shortened(expected)}"
            )
            self.commands += 1

    def verify_after_restart(self, port: int):
        """The keys are those of the model after what was answered and some first part of what was not."""
        with Connection(port, 60) as connection:
            found = [self.read_database(connection, database) for database in range(len(self.model.keys))]
            reply = connection.command("TIME")
        # To the microsecond: a key that is gone before its time was removed by a command that must be found.
        looked_ms = microseconds_of(parse(reply)) / 1000
        closest = None
        for request in [[], *self.unanswered]:
            for database, words in request:
                self.model.run(database, words)
            difference = self.difference(found, looked_ms)
            if difference is None:
                # Timed keys that are gone do not come back.
                self.unanswered = []
                return
            closest = closest or difference
        raise AssertionError(f"worker {self.number}, {len(self.unanswered)} unanswered: {closest}")

    def read_database(self, connection: Connection, database: int) -> dict:
        """All keys of one of the worker's databases with their values and expiry."""
        assert connection.command("SELECT", self.real_database(database)) == b"+OK\r\n"
        cursor, names = b"0", set()
        while True:
            cursor, part = parse(connection.command("SCAN", cursor, "MATCH", self.model.prefix + b"*", "COUNT", 1000))
            names.update(part)
            if cursor == b"0":
                break
        entries = {}
        for name in sorted(names):
            value = parse(connection.command("GET", name))
            at = parse(connection.command("PEXPIRETIME", name))
            if value is not None and at != -2:
                entries[name] = (value, None if at == -1 else at)
        return entries

    def difference(self, found: list[dict], looked_ms: float) -> str | None:
        """What is not as the model says; None when all is."""
        for database, (model, entries) in enumerate(zip(self.model.keys, found)):
            for name in model.keys() | entries.keys():
                expected, there = model.get(name), entries.get(name)
                if expected and not there and expected[1] is not None and expected[1] <= looked_ms:
                    continue
                if expected != there:
                    return f"{name} of database {self.real_database(database)}: {shortened(there)}, not {shortened(expected)}"
        return None


def microseconds_of(time_reply: list[bytes]) -> int:
    """The moment that the reply of TIME names."""
    seconds, microseconds = time_reply
    return int(seconds) * 1_000_000 + int(microseconds)


def send_all(connection: Connection, requests: bytes):
    """Sends, and lets the reader find out when the connection has ended."""
    try:
        connection.socket.sendall(requests)
    except OSError:
        pass


def shortened(value) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) < 120 else f"{text[:100]}... ({len(text)} characters)"


class Saver(threading.Thread):
    """Asks for checkpoints, now and then."""

    def __init__(self, port: int, seed: int):
        super().__init__()
        self.port, self.random = port, random.Random(seed)
        self.stop, self.failure, self.saves = threading.Event(), None, 0

    def run(self):
        try:
            with Connection(self.port, 60) as connection:
                while not self.stop.wait(self.random.random() * 0.3):
                    answer = connection.command(self.random.choice(["SAVE", "BGSAVE"]))
                    in_progress = b"in progress" in answer
                    assert answer.startswith(b"+") or in_progress, answer
                    self.saves += 1
        except (ConnectionError, OSError):
            pass
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure


def end(node, how: str):
    """Ends the server's process."""
    if how == "kill -9":
        node.kill()
        return
    if how == "SIGTERM":
        assert node.terminate() == 0
        return
    with Connection(node.port) as connection:
        try:
            answer = connection.command(*how.split())
            assert not answer.startswith(b"-"), answer
        except (ConnectionError, OSError):
            pass
    assert node.wait() == 0


# How often values have which size, and what the server is told of memory.
IN_MEMORY = [40, 40, 15, 2, 0.2], ()
LARGER_THAN_MEMORY = [10, 10, 40, 30, 10], ("--maxmemory", "24mb", "--maxmemory-policy", "tier")


@pytest.mark.parametrize(("sizes", "memory"), [IN_MEMORY, LARGER_THAN_MEMORY], ids=["in memory", "larger than memory"])
def test_random_commands_with_checkpoints_and_restarts_do_what_the_model_says(make_node, sizes, memory):
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:.0f}")
    rng = random.Random(SEED)
    count = WORKERS_WITH_DATABASES + WORKERS_IN_ONE
    models = [Model(b"w%d:" % number, 2 if number < WORKERS_WITH_DATABASES else 1) for number in range(count)]
    node = make_node("--wal_file_size", "4mb", "--wal_buffer_size", "1mb", "--checkpoint-log-size", "16mb",
                     "--scrub-rate", "64mb", *memory).start()
    until = time.monotonic() + SECONDS / 2
    commands = saves = restarts = fetched = 0
    while time.monotonic() < until or restarts == 0:
        workers = [Worker(number, node.port, model, rng.randrange(2**32), sizes) for number, model in enumerate(models)]
        saver = Saver(node.port, rng.randrange(2**32))
        for thread in [*workers, saver]:
            thread.start()
        # How long a life lasts is no wait for something: it is the workload.
        life = rng.random() * rng.choice([0.5, 2, 6])
        nodes.until(lambda end=time.monotonic() + life: time.monotonic() > end or any(w.failure for w in workers), "a life")
        how = rng.choice(["kill -9", "kill -9", "kill -9", "SIGTERM", "SHUTDOWN", "SHUTDOWN NOSAVE"])
        if rng.random() < 0.5:
            for thread in [*workers, saver]:
                thread.stop.set()
                thread.join()
        end(node, how)
        for thread in [*workers, saver]:
            thread.stop.set()
            thread.join()
            assert thread.failure is None, f"life {restarts}, SOAK_SEED={SEED}: {thread.failure!r}"
        node.start()
        restarts += 1
        for worker in workers:
            before = copy.deepcopy(worker.model.keys) if worker.unanswered else None
            try:
                worker.verify_after_restart(node.port)
            except AssertionError as wrong:
                told = f"{len(before)} databases" if before else "nothing unanswered"
                raise AssertionError(f"life {restarts} after {how}, SOAK_SEED={SEED} ({told}): {wrong}") from wrong
        with node.client() as client:
            assert client.info("persistence")["scrub_damage"] == 0
            fetched += client.info("memory")["tier_values_fetched"]
        commands += sum(worker.commands for worker in workers)
        saves += saver.saves
    print(f"{commands} commands, {saves} checkpoints asked for, {restarts} restarts, {fetched} values read back: as the model says")
    assert commands > 1000 and saves > 0
    assert (fetched > 0) == bool(memory), "values leave memory where it is small"


def test_the_model_of_this_file_sees_a_wrong_reply():
    """The test of the test."""
    model = Model(b"w0:", 2)
    assert model.run(0, ("SET", b"w0:k1", b"v")) == OK
    assert not agrees(model.run(0, ("GET", b"w0:k1")), b"w", 0, 0)
    assert not agrees(model.run(1, ("GET", b"w0:k1")), b"v", 0, 0)
    assert agrees(model.run(0, ("APPEND", b"w0:k1", b"w")), 2, 0, 0)
    model.run(0, ("SET", b"w0:t1", b"v", "PXAT", 1000))
    timed = model.run(0, ("GET", b"w0:t1"))
    assert timed.allows(b"v", 0, 999) and not timed.allows(None, 0, 999)
    assert timed.allows(None, 1000, 1001) and not timed.allows(b"v", 1000, 1001)
    assert timed.allows(None, 990, 1010) and timed.allows(b"v", 990, 1010)
    worker = Worker(0, 0, model, 0, IN_MEMORY[0])
    entries = [{b"w0:k1": (b"vw", None)}, {}]
    assert worker.difference(entries, 2000) is None and worker.difference(entries, 1000) is None
    assert worker.difference(entries, 999.9), "a key that goes in a moment and is gone was removed"
    assert microseconds_of([b"2", b"000345"]) == 2_000_345
    assert worker.difference([{b"w0:k1": (b"v", None)}, {}], 2000)
    assert worker.difference([{}, {}], 2000)
    assert worker.difference([{**entries[0], b"w0:k2": (b"", None)}, {}], 2000)
