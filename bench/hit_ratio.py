"""Hit ratios of a cache under a limit on memory: each of Bowline's policies, Redis' allkeys-lru and allkeys-lfu, and the best
that any policy could do (Belady: evict what is used again last, knowing the future; a key that is not used again is not kept).

The client reads a key and, when it is not there, writes it: 100,000 keys, a cache of 10,000. Every server gets the limit
with which it holds just so many keys of 1 KiB; it is followed up, as other things in memory change. Reads are STRLEN, which counts as a use in both servers
and answers without the value. Traces: zipf with exponent s, the keys in random order; "+ scan" puts a pass over keys that
are read once in 100,000 requests between each two pieces, a third of all requests.

    bench/hit_ratio.py [--requests 1000000] [--traces zipf:0.99,scan:0.99] [--policies allkeys-lfu]
"""

import argparse
import heapq
import random
import socket
import sys
import tempfile
from bisect import bisect_left
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path

from servers import Bowline, Redis, Server

KEYS = 100_000
CACHE_KEYS = 10_000
VALUE = b"v" * 1024
BYTES_PER_KEY = 1200
BATCH = 64
TRACES = ["zipf:0.8", "zipf:0.99", "zipf:1.2", "scan:0.8", "scan:0.99", "scan:1.2"]
OURS = ["allkeys-lru", "allkeys-lfu", "allkeys-random"]
THEIRS = ["allkeys-lru", "allkeys-lfu"]


def trace(kind: str, requests: int, keys: int = KEYS) -> list[int]:
    """The numbers of the keys that are asked for, in order; the same for every server."""
    shape, exponent = kind.split(":")
    chooser = random.Random(20261120)
    weights = list(accumulate(1 / rank ** float(exponent) for rank in range(1, keys + 1)))
    order = chooser.sample(range(keys), keys)
    asked, scanned = [], 0
    while len(asked) < requests:
        for _ in range(keys // 4):
            asked.append(order[bisect_left(weights, chooser.random() * weights[-1], 0, keys - 1)])
        if shape == "scan":
            asked.extend(keys + (scanned + step) % keys for step in range(keys // 8))
            scanned += keys // 8
    return asked[:requests]


def best_possible(asked: list[int], room: int, counted_from: int) -> float:
    """Belady's ratio of the requests from `counted_from` on."""
    never = len(asked)
    next_use, last_seen = [never] * len(asked), {}
    for at in range(len(asked) - 1, -1, -1):
        next_use[at] = last_seen.get(asked[at], never)
        last_seen[asked[at]] = at
    kept, farthest, hits = {}, [], 0
    for at, key in enumerate(asked):
        if key in kept:
            hits += at >= counted_from
        elif next_use[at] == never:
            continue
        kept[key] = next_use[at]
        heapq.heappush(farthest, (-next_use[at], key))
        while len(kept) > room:
            use, key = heapq.heappop(farthest)
            if kept.get(key) == -use:
                del kept[key]
    return hits / (len(asked) - counted_from)


def exact_lru(asked: list[int], room: int, counted_from: int) -> float:
    """The ratio of a list in the order of use. Redis keeps the time of use in seconds, and a replay has only few of them."""
    kept, hits = OrderedDict(), 0
    for at, key in enumerate(asked):
        hits += key in kept and at >= counted_from
        kept[key] = None
        kept.move_to_end(key)
        if len(kept) > room:
            kept.popitem(last=False)
    return hits / (len(asked) - counted_from)


class Cache:
    """A connection that uses a server as a cache."""

    def __init__(self, server: Server):
        self.connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.limit = 0

    def answers(self, request: bytes, count: int) -> list[bytes]:
        """Sends a request and reads so many answers of one line."""
        self.connection.sendall(request)
        lines = self.buffer.split(b"\r\n")
        while len(lines) <= count:
            received = self.connection.recv(1 << 16)
            if not received:
                raise ConnectionError("the server closed the connection")
            self.buffer += received
            lines = self.buffer.split(b"\r\n")
        self.buffer = b"\r\n".join(lines[count:])
        return lines[:count]

    def ask(self, *words) -> bytes:
        """One request with an answer of one line."""
        return self.answers(b" ".join(str(word).encode() for word in words) + b"\r\n", 1)[0]

    def keys(self) -> int:
        """How many there are."""
        return int(self.ask("DBSIZE")[1:])

    def write(self, keys):
        """Writes keys; an error is one for the caller."""
        keys = list(keys)
        request = b"".join(b"*3\r\n$3\r\nSET\r\n$12\r\n%012d\r\n$1024\r\n%b\r\n" % (key, VALUE) for key in keys)
        wrong = [answer for answer in self.answers(request, len(keys)) if answer != b"+OK"] if keys else []
        if wrong:
            raise RuntimeError(f"a write was refused with maxmemory {self.limit} and {self.keys()} keys: {wrong[0]!r}")

    def hold(self, wanted: int):
        """Moves maxmemory by what is missing of `wanted` keys, or too much."""
        self.limit += (wanted - self.keys()) * BYTES_PER_KEY // 2
        self.ask("CONFIG", "SET", "maxmemory", self.limit)

    def limit_to(self, wanted: int):
        """Finds about the maxmemory with which the server holds `wanted` keys."""
        self.limit, fresh = 2 * wanted * BYTES_PER_KEY, 10_000_000
        for _ in range(12):
            for start in range(fresh, fresh + 2 * wanted, BATCH):
                self.write(range(start, start + BATCH))
            fresh += 2 * wanted
            self.hold(wanted)

    def replay(self, asked: list[int], counted_from: int) -> tuple[float, float]:
        """Reads every key and writes the missing; returns the hit ratio and the mean number of keys from `counted_from` on.
        The limit follows what else the server has in memory, so that the number of keys stays the same."""
        hits, held, full = 0, [], False
        for start in range(0, len(asked), BATCH):
            # Until it was full once, fewer keys say nothing of the limit.
            full = full or start >= counted_from // 2
            if full and start % (BATCH * 100) == 0:
                self.hold(CACHE_KEYS)
                held.append(self.keys() if start >= counted_from else 0)
            batch = asked[start:start + BATCH]
            request = b"".join(b"*2\r\n$6\r\nSTRLEN\r\n$12\r\n%012d\r\n" % key for key in batch)
            found = self.answers(request, len(batch))
            missing = {key for key, answer in zip(batch, found) if answer == b":0"}
            self.write(missing)
            if start >= counted_from:
                # A key that is missing twice in a batch would have been there the second time.
                hits += sum(answer != b":0" for answer in found)
                hits += sum(answer == b":0" for answer in found) - len(missing)
        held = [keys for keys in held if keys]
        return hits / (len(asked) - counted_from), sum(held) / max(len(held), 1)


def measure(base: Path, kinds: list[str], requests: int, ours: list[str], theirs: list[str]) -> dict[str, dict[str, float]]:
    """The ratios by trace, then by policy."""
    counted_from = requests // 5 // BATCH * BATCH
    traces = {kind: trace(kind, requests) for kind in kinds}
    ratios = {kind: {
        "best possible": best_possible(asked, CACHE_KEYS, counted_from),
        "exact LRU": exact_lru(asked, CACHE_KEYS, counted_from),
    } for kind, asked in traces.items()}
    made = [("Bowline", policy, lambda: Bowline(base, cpus=None, durability="none", checkpoints=False)) for policy in ours]
    made += [("Redis", policy, lambda: Redis(base, cpus=None)) for policy in theirs]
    for name, policy, make in made:
        server = make()
        try:
            server.start()
            cache = Cache(server)
            cache.ask("CONFIG", "SET", "maxmemory-policy", policy)
            cache.limit_to(CACHE_KEYS)
            for kind, asked in traces.items():
                cache.ask("FLUSHALL")
                ratio, held = cache.replay(asked, counted_from)
                ratios[kind][f"{name} {policy}"] = ratio
                print(f"{name} {policy}: {kind}: {ratio:.4f} with {held:.0f} keys", file=sys.stderr, flush=True)
        finally:
            server.remove()
    return ratios


def table(ratios: dict[str, dict[str, float]]) -> str:
    """The ratios as a table, a row for each policy."""
    kinds = list(ratios)
    names = [kind.replace("zipf:", "zipf ").replace("scan:", "+ scan ") for kind in kinds]
    lines = ["| hit ratio, % | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(kinds)]
    for policy in ratios[kinds[0]]:
        lines.append(f"| {policy} | " + " | ".join(f"{100 * ratios[kind][policy]:.1f}" for kind in kinds) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--traces", default=",".join(TRACES))
    parser.add_argument("--policies", default=",".join(OURS), help="Bowline's")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bowline-bench-") as base:
        policies = [policy for policy in chosen.policies.split(",") if policy]
        print(table(measure(Path(base), chosen.traces.split(","), chosen.requests, policies, THEIRS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
