#!/usr/bin/env python3
"""Measures Bowline against Debian's redis-server in one run, on this machine.

    make bench                      every part (about 20 minutes on two cores)
    make bench ONLY=get_set,memory  some of them; the others keep their last figures

One core for the server (CPU 0), the other for the load (CPU 1). 1 M keys of 16 bytes, values of 32 bytes. Every figure is
the median of three runs, Bowline and Redis in turn, so that both meet the same noise of the machine. Compare ratios and
server CPU per operation, not raw rates.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import disk
import hit_ratio
import report
from load import GENERATORS, KEYS, Load, fill
from servers import ROOT, Bowline, Redis, Server, version_of_redis

RUNS = 3
SECONDS = 3.0


def row(name: str, ours: float, theirs: float, unit: str, target: float | None, *, against: str = "Redis, no persistence",
        lower_is_better: bool = False, our_cpu_us: float | None = None, their_cpu_us: float | None = None) -> dict:
    """One line of the table. `target` is held against ours / theirs."""
    return {
        "name": name, "ours": ours, "theirs": theirs, "unit": unit, "ratio": ours / theirs, "target": target,
        "against": against, "lower_is_better": lower_is_better, "our_cpu_us": our_cpu_us, "their_cpu_us": their_cpu_us,
    }


def shown(made: dict) -> dict:
    """Prints a row and returns it."""
    print(report.line(made), flush=True)
    return made


class Bench:
    """One run of the chosen parts; every server it starts is gone at its end."""

    def __init__(self, base: Path, quick: bool, generator: str):
        self.generate = GENERATORS[generator]
        self.base = base
        self.quick = quick
        self.seconds = 0.5 if quick else SECONDS
        self.runs = 1 if quick else RUNS
        self.keys = 100_000 if quick else KEYS
        self.many_keys = 200_000 if quick else 5_000_000

    @contextmanager
    def running(self, *servers, keys: int | None = None):
        """Starts servers, fills them, removes them afterwards."""
        try:
            for server in servers:
                server.start()
                fill(server, self.keys if keys is None else keys)
            yield servers
        finally:
            for server in servers:
                server.remove()

    def in_turn(self, load: Load, *servers: Server) -> list[dict]:
        """The same load on each server in turn, several times; the medians for each server."""
        runs = [[] for _ in servers]
        for server in servers:
            self.generate(server, load, self.seconds / 4)
        for _ in range(self.runs):
            for server, into in zip(servers, runs):
                into.append(self.generate(server, load, self.seconds))
        return [{field: statistics.median(getattr(run, field) for run in of_server)
                 for field in ("ops_per_s", "server_us_per_op", "read_p99_us")} for of_server in runs]

    def compared(self, name: str, ours: Server, theirs: Server, load: Load, target: float | None, **more) -> dict:
        """A throughput row."""
        mine, other = self.in_turn(load, ours, theirs)
        return shown(row(name, mine["ops_per_s"], other["ops_per_s"], "ops/s", target,
                         our_cpu_us=mine["server_us_per_op"], their_cpu_us=other["server_us_per_op"], **more))

    def get_set(self) -> list[dict]:
        """GET and SET without pipelining; our SET answers after fdatasync, Redis persists nothing."""
        with self.running(Bowline(self.base), Redis(self.base)) as (ours, theirs):
            return [self.compared("GET, 50 connections", ours, theirs, Load("get:100", keys=self.keys), 1.0),
                    self.compared("SET (committed), 50 connections", ours, theirs, Load("set:100", keys=self.keys), 0.85)]

    def pipelined(self) -> list[dict]:
        """GET and SET with pipelines of 16 and 64."""
        with self.running(Bowline(self.base), Redis(self.base)) as (ours, theirs):
            return [self.compared(f"{name}, pipeline {pipeline}", ours, theirs,
                                  Load(mix, pipeline=pipeline, keys=self.keys), target)
                    for name, mix, pipeline, target in (
                        ("GET", "get:100", 16, 2.0), ("GET", "get:100", 64, 2.5),
                        ("SET (committed)", "set:100", 16, 1.5), ("SET (committed)", "set:100", 64, 1.5))]

    def durable(self) -> list[dict]:
        """SET where Redis syncs before it answers as well."""
        with self.running(Bowline(self.base), Redis(self.base, appendfsync="always")) as (ours, theirs):
            return [self.compared(f"durable SET, {connections} connection{'s' * (connections > 1)}", ours, theirs,
                                  Load("set:100", connections, keys=self.keys), target, against="Redis, appendfsync always")
                    for connections, target in ((1, 1.4), (50, 1.7), (500, 1.2))]

    def mix(self) -> list[dict]:
        """90 % GET, 10 % SET, zipf: what committed writes cost the reads beside them."""
        load = Load("get:90,set:10", keys=self.keys, distribution="zipf")
        servers = Bowline(self.base), Bowline(self.base, durability="none"), Redis(self.base, appendfsync="always")
        with self.running(*servers):
            always, none, redis = self.in_turn(load, *servers)
        return [
            shown(row("90/10 zipf, read p99, committed", always["read_p99_us"], none["read_p99_us"], "us", 1.15,
                      against="Bowline, durability none", lower_is_better=True)),
            shown(row("90/10 zipf, read p99", always["read_p99_us"], redis["read_p99_us"], "us", None,
                      against="Redis, appendfsync always", lower_is_better=True)),
            shown(row("90/10 zipf, committed", always["ops_per_s"], redis["ops_per_s"], "ops/s", None,
                      against="Redis, appendfsync always", our_cpu_us=always["server_us_per_op"],
                      their_cpu_us=redis["server_us_per_op"])),
        ]

    def memory(self) -> list[dict]:
        """Resident bytes for each key, the empty server subtracted."""
        rows = []
        for keys in (self.keys, self.many_keys):
            found = {}
            for server in (Bowline(self.base), Redis(self.base)):
                try:
                    server.start()
                    empty = server.resident_bytes()
                    fill(server, keys)
                    found[server.name] = (server.resident_bytes() - empty) / keys
                finally:
                    server.remove()
            rows.append(shown(row(f"memory per key, {keys / 1e6:g} M keys", found["bowline"], found["redis"], "bytes", 0.55,
                                  against="Redis", lower_is_better=True)))
        return rows

    def hit_ratio(self) -> list[dict]:
        """A cache of a tenth of the keys under a limit on memory: what is found, against the better policy of Redis."""
        requests = 100_000 if self.quick else 1_000_000
        ratios = hit_ratio.measure(self.base, hit_ratio.TRACES, requests, hit_ratio.OURS, hit_ratio.THEIRS)
        print(hit_ratio.table(ratios), flush=True)
        rows = []
        for kind, found in ratios.items():
            theirs, policy = max((found[f"Redis {policy}"], policy) for policy in hit_ratio.THEIRS)
            name = f"Hits of allkeys-lfu, {kind.replace('zipf:', 'zipf ').replace('scan:', 'zipf and scans ')}"
            rows.append(shown(row(name, 100 * found["Bowline allkeys-lfu"], 100 * theirs, "%", 1.0, against=f"Redis, {policy}")))
        return rows

    def restart(self) -> list[dict]:
        """Reading a log of 5 M SETs until PING is answered; page cache warm, no pinning (a restart has the machine)."""
        keys, found = self.many_keys, {}
        ours = Bowline(self.base, cpus=None, threads=2, checkpoints=False)
        for server in (ours, Redis(self.base, cpus=None, appendfsync="everysec")):
            try:
                server.start()
                fill(server, keys)
                server.end_with("NOSAVE")
                found[server.name] = keys / self.restarts(server, keys, "NOSAVE")
            finally:
                server.remove()
        return [shown(row(f"restart from a log of {keys / 1e6:g} M SETs", found["bowline"], found["redis"], "keys/s", 3.0,
                          against="Redis, loading its AOF"))]

    def restarts(self, server: Server, keys: int, how: str) -> float:
        """The median seconds of several starts; the server is stopped before and afterwards."""
        times = []
        for _ in range(self.runs):
            times.append(server.start())
            size = server.ask(b"DBSIZE\r\n").strip()
            assert size == b":%d" % keys, f"{server.name} has {size!r} keys after the restart"
            server.end_with(how)
        return statistics.median(times)

    def restart_checkpoint(self) -> list[dict]:
        """Loading a checkpoint of 5 M keys until PING is answered, against Redis loading its RDB file; page cache warm. Then
        the time until the first value is right, lazy against eager, page cache warm and, where the system allows, cold."""
        keys, found = self.many_keys, {}
        for server in (Bowline(self.base, cpus=None, threads=2), Redis(self.base, cpus=None)):
            try:
                server.start()
                fill(server, keys)
                server.end_with("SAVE")
                found[server.name] = keys / self.restarts(server, keys, "SAVE")
            finally:
                server.remove()
        rows = [shown(row(f"restart from a checkpoint of {keys / 1e6:g} M keys", found["bowline"], found["redis"], "keys/s", 3.0,
                          against="Redis, loading its RDB"))]
        return rows + self.first_values(keys)

    def first_values(self, keys: int) -> list[dict]:
        """Milliseconds from exec to the first right GET: medians of five starts each, lazy and eager in turn."""
        server, rows = Bowline(self.base, cpus=None, threads=2), []
        try:
            server.start()
            fill(server, keys)
            wanted = server.ask(b"GET key:000000001234\r\n")
            assert wanted.startswith(b"$"), f"a key of the load is missing: {wanted!r}"
            server.end_with("SAVE")
            plain = server.arguments
            for cache in ("warm", "cold"):
                if cache == "cold" and not drop_page_cache():
                    break
                times = {"lazy": [], "eager": []}
                for _ in range(1 if self.quick else 5):
                    for how, taken in times.items():
                        server.arguments = [*plain, "--restart", how]
                        if cache == "cold":
                            drop_page_cache()
                        taken.append(1000 * server.start_until(b"GET key:000000001234\r\n", wanted))
                        server.end_with("SAVE")
                rows.append(shown(row(f"first value after a lazy restart, {keys / 1e6:g} M keys, {cache} page cache",
                                      statistics.median(times["lazy"]), statistics.median(times["eager"]), "ms", 0.1,
                                      against="eager", lower_is_better=True)))
        finally:
            server.remove()
        return rows

    def checkpoint(self) -> list[dict]:
        """SETs at full speed with 5 M keys, alone and while a checkpoint (BGSAVE) of all of them is written."""
        load, rows, slower = Load("set:100", keys=self.many_keys), [], {}
        for server in (Bowline(self.base, checkpoints=False), Redis(self.base)):
            with self.running(server, keys=self.many_keys):
                self.generate(server, load, self.seconds / 4)
                alone, during, grown = [], [], []
                for _ in range(self.runs):
                    alone.append(self.generate(server, load, self.seconds))
                    before, saves = server.resident_bytes(), server.saves()
                    server.begin_save()
                    with server.watched_memory() as watched:
                        during.append(self.generate(server, load, self.seconds))
                        server.wait_for_save(saves)
                    grown.append((watched.most_bytes - before) / 1e6)
                median = lambda runs, field: statistics.median(getattr(run, field) for run in runs)
                for name, field in (("p99", "write_p99_us"), ("p99.9", "write_p999_us"), ("slowest", "write_max_us")):
                    with_it, without = median(during, field), median(alone, field)
                    rows.append(shown(row(f"{server.name}: SET {name} during a checkpoint", with_it, without, "us",
                                          1.3 if server.name == "bowline" and name != "slowest" else None,
                                          against="the same without", lower_is_better=True)))
                slower[server.name] = statistics.median(grown)
        rows.append(shown(row("memory more during a checkpoint, 5 M keys", slower["bowline"], slower["redis"], "MB", None,
                              against="Redis, BGSAVE", lower_is_better=True)))
        return rows

    def disk(self) -> list[dict]:
        """Bytes on disk for each key and bytes written for each byte of users, for JSON-like values."""
        rows = []
        for value_bytes, keys in ((100, 500_000), (1024, 200_000)):
            found = disk.bytes_per_key(self.base, value_bytes, keys // 20 if self.quick else keys)
            rows += [shown(row(f"on disk per key, JSON of {value_bytes} bytes, {kind}", found[kind], found["redis"], "bytes", None,
                               against="Redis, RDB with its compression", lower_is_better=True)) for kind in disk.COMPRESSIONS]
        keys, overwrites = (10_000, 20_000) if self.quick else (100_000, 1_000_000)
        found = disk.amplification(self.base, 1024, keys, overwrites)
        rows += [shown(row(f"written per byte of users, overwrites of 1 KiB, {kind}", found[kind], found["redis"], "bytes", None,
                           against="Redis, append-only file with rewrites", lower_is_better=True)) for kind in disk.COMPRESSIONS]
        return rows

    def loops(self) -> list[dict]:
        """Two event loops against one, both free to use both cores (the load shares them)."""
        load = Load("get:100", pipeline=16, keys=self.keys, cpu="0,1")
        two, one = Bowline(self.base, cpus="0,1", threads=2), Bowline(self.base, cpus="0,1", threads=1)
        with self.running(two, one):
            return [self.compared("two event loops, GET, pipeline 16", two, one, load, 1.0,
                                  against="Bowline, one event loop")]


    def tier(self) -> list[dict]:
        """1 GB of values of 1 KiB under a limit on memory of 160 MB: reads of what is hot, and of anything; page cache warm."""
        limit = "32mb" if self.quick else "160mb"
        small = Bowline(self.base, more=("--maxmemory", limit, "--maxmemory-policy", "tier"))
        large = Bowline(self.base)
        try:
            for server in (small, large):
                server.start()
                fill(server, self.keys, value_bytes=1024)
            hot = Load("get:100", pipeline=16, keys=self.keys // 50)
            rows = [self.compared("tier, GETs of hot values, pipeline 16", small, large, hot, 0.9, against="Bowline, all in memory")]
            for pipeline in (1, 16):
                any_of_them = Load("get:100", pipeline=pipeline, keys=self.keys)
                rows.append(self.compared(f"tier, GETs of any values, pipeline {pipeline}", small, large, any_of_them, None,
                                          against="Bowline, all in memory"))
            return rows
        finally:
            small.remove()
            large.remove()


PARTS = ["get_set", "pipelined", "durable", "mix", "memory", "hit_ratio", "restart", "restart_checkpoint", "checkpoint", "disk", "loops",
         "tier"]


def drop_page_cache() -> bool:
    """Writes everything back and empties the page cache; False where that is not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def machine() -> dict:
    """What the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"load_average": os.getloadavg()[0], "cpu": model, "cores": os.cpu_count(), "kernel": platform.release().split("-")[0], "redis": version_of_redis(),
            "commit": commit.stdout.strip(), "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a short trial of the driver itself; writes no results")
    parser.add_argument("--generator", choices=GENERATORS, default="kv_client")
    parser.add_argument("--dir", default=str(ROOT / "target"), help="where data directories go (a real disk, no tmpfs)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if os.cpu_count() < 2:
        parser.error("this needs two cores, one for the server and one for the load")
    Path(options.dir).mkdir(parents=True, exist_ok=True)
    if os.getloadavg()[0] > report.IDLE_LOAD:
        print(f"WARNING: the load average is {os.getloadavg()[0]:.1f}: others use this machine, and the figures will say so")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as base:
        bench = Bench(Path(base), options.quick, options.generator)
        results = report.load()
        for part in chosen:
            print(f"== {part}: {getattr(Bench, part).__doc__.splitlines()[0]}", flush=True)
            found_on = machine()
            results[part] = {"machine": found_on, "rows": getattr(bench, part)()}
            if not options.quick:
                report.save(results)
    if not options.quick:
        report.publish(results)
        print(f"wrote {report.JSON_PATH}, {report.SVG_PATH} and the figures in README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
