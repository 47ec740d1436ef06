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

import report
from load import KEYS, Measured, fill, kv_client_bench, redis_benchmark
from servers import ROOT, Bowline, Redis, version_of_redis

RUNS = 3
SECONDS = 3.0


def row(name: str, ours: float, theirs: float, unit: str, target: float | None, *, against: str = "Redis, no persistence",
        lower_is_better: bool = False, our_cpu_us: float | None = None, their_cpu_us: float | None = None) -> dict:
    """One line of the table. `target` is held against ours / theirs."""
    return {
        "name": name, "ours": ours, "theirs": theirs, "unit": unit, "ratio": ours / theirs, "target": target,
        "against": against, "lower_is_better": lower_is_better, "our_cpu_us": our_cpu_us, "their_cpu_us": their_cpu_us,
    }


def median(runs: list[Measured], field: str) -> float:
    """The median of one field over the runs."""
    return statistics.median(getattr(run, field) for run in runs)


class Bench:
    """One run of the chosen parts; every server it starts is gone at its end."""

    def __init__(self, base: Path, quick: bool):
        self.base = base
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

    def versus(self, ours, theirs, command: str, connections: int, pipeline: int) -> tuple[list[Measured], list[Measured]]:
        """The same load on both in turn; the number of requests is chosen from a short first run of each."""
        requests = {}
        for server in (ours, theirs):
            probe = redis_benchmark(server, command, connections, pipeline, 20_000 * min(pipeline, 16), self.keys)
            requests[server] = max(10_000, int(probe.ops_per_s * self.seconds))
        results = ([], [])
        for _ in range(self.runs):
            for server, into in zip((ours, theirs), results):
                into.append(redis_benchmark(server, command, connections, pipeline, requests[server], self.keys))
        return results

    def compared(self, name, ours, theirs, command, connections, pipeline, target, **more) -> dict:
        """A throughput row of one command."""
        mine, other = self.versus(ours, theirs, command, connections, pipeline)
        made = row(name, median(mine, "ops_per_s"), median(other, "ops_per_s"), "ops/s", target,
                   our_cpu_us=median(mine, "server_us_per_op"), their_cpu_us=median(other, "server_us_per_op"), **more)
        print(report.line(made), flush=True)
        return made

    def get_set(self) -> list[dict]:
        """GET and SET without pipelining; our SET answers after fdatasync, Redis persists nothing."""
        with self.running(Bowline(self.base), Redis(self.base)) as (ours, theirs):
            return [self.compared("GET, 50 connections", ours, theirs, "GET", 50, 1, 1.0),
                    self.compared("SET (committed), 50 connections", ours, theirs, "SET", 50, 1, 0.85)]

    def pipelined(self) -> list[dict]:
        """GET and SET with pipelines of 16 and 64."""
        with self.running(Bowline(self.base), Redis(self.base)) as (ours, theirs):
            return [self.compared(f"{command}{note}, pipeline {pipeline}", ours, theirs, command, 50, pipeline, target)
                    for command, note, pipeline, target in (
                        ("GET", "", 16, 2.0), ("GET", "", 64, 2.5),
                        ("SET", " (committed)", 16, 1.5), ("SET", " (committed)", 64, 1.5))]

    def durable(self) -> list[dict]:
        """SET where Redis syncs before it answers as well."""
        with self.running(Bowline(self.base), Redis(self.base, appendfsync="always")) as (ours, theirs):
            return [self.compared(f"durable SET, {connections} connection{'s' * (connections > 1)}", ours, theirs, "SET",
                                  connections, 1, target, against="Redis, appendfsync always")
                    for connections, target in ((1, 1.4), (50, 1.7), (500, 1.2))]

    def mix(self) -> list[dict]:
        """90 % GET, 10 % SET, zipf: what committed writes cost the reads beside them."""
        kinds = {"always": Bowline(self.base), "none": Bowline(self.base, durability="none"),
                 "redis": Redis(self.base, appendfsync="always")}
        found = {kind: {"p99": [], "rate": [], "cpu": []} for kind in kinds}
        with self.running(*kinds.values()):
            for _ in range(self.runs):
                for kind, server in kinds.items():
                    total, whole = kv_client_bench(server, "get:90,set:10", 50, 1, self.seconds, self.keys,
                                                       distribution="zipf")
                    reads = next(c for c in whole["commands"] if c["command"].lower() == "get")
                    found[kind]["p99"].append(reads["p99_us"])
                    found[kind]["rate"].append(total.ops_per_s)
                    found[kind]["cpu"].append(total.server_us_per_op)
        middle = {kind: {field: statistics.median(values) for field, values in fields.items()} for kind, fields in found.items()}
        always, none, redis = middle["always"], middle["none"], middle["redis"]
        rows = [
            row("90/10 zipf, read p99, committed", always["p99"], none["p99"], "us", 1.15, against="Bowline, durability none",
                lower_is_better=True, our_cpu_us=always["cpu"], their_cpu_us=none["cpu"]),
            row("90/10 zipf, committed", always["rate"], redis["rate"], "ops/s", None, against="Redis, appendfsync always",
                our_cpu_us=always["cpu"], their_cpu_us=redis["cpu"]),
            row("90/10 zipf, read p99", always["p99"], redis["p99"], "us", None, against="Redis, appendfsync always",
                lower_is_better=True),
        ]
        for made in rows:
            print(report.line(made), flush=True)
        return rows

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
            rows.append(row(f"memory per key, {keys / 1e6:g} M keys", found["bowline"], found["redis"], "bytes", 0.55,
                            lower_is_better=True))
            print(report.line(rows[-1]), flush=True)
        return rows

    def restart(self) -> list[dict]:
        """Reading a log of 5 M SETs until PING is answered; page cache warm, no pinning (a restart has the machine)."""
        keys, found = self.many_keys, {}
        for server in (Bowline(self.base, cpus=None, threads=2), Redis(self.base, cpus=None, appendfsync="everysec")):
            try:
                server.start()
                fill(server, keys)
                server.terminate()
                times = []
                for _ in range(self.runs):
                    times.append(server.start())
                    size = server.ask(b"DBSIZE\r\n").strip()
                    assert size == b":%d" % keys, f"{server.name} has {size!r} keys after the restart"
                    server.terminate()
                found[server.name] = keys / statistics.median(times)
            finally:
                server.remove()
        made = row(f"restart from a log of {keys / 1e6:g} M SETs", found["bowline"], found["redis"], "keys/s", 3.0,
                   against="Redis, loading its AOF")
        print(report.line(made), flush=True)
        return [made]

    def loops(self) -> list[dict]:
        """Two event loops against one, both free to use both cores (the load shares them)."""
        found = {}
        for threads in (1, 2):
            server = Bowline(self.base, cpus="0,1", threads=threads)
            with self.running(server):
                runs = [kv_client_bench(server, "get:100", 50, 64, self.seconds, self.keys, cpu="0,1")[0] for _ in range(self.runs)]
                found[threads] = runs
        made = row("two event loops, GET, pipeline 64", median(found[2], "ops_per_s"), median(found[1], "ops_per_s"), "ops/s",
                   1.0, against="Bowline, one event loop", our_cpu_us=median(found[2], "server_us_per_op"),
                   their_cpu_us=median(found[1], "server_us_per_op"))
        print(report.line(made), flush=True)
        return [made]


PARTS = ["get_set", "pipelined", "durable", "mix", "memory", "restart", "loops"]


def machine() -> dict:
    """What the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release().split("-")[0], "redis": version_of_redis(),
            "commit": commit.stdout.strip(), "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a short trial of the driver itself; writes no results")
    parser.add_argument("--dir", default=str(ROOT / "target"), help="where data directories go (a real disk, no tmpfs)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if os.cpu_count() < 2:
        parser.error("this needs two cores, one for the server and one for the load")
    Path(options.dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as base:
        bench = Bench(Path(base), options.quick)
        results = report.load()
        for part in chosen:
            print(f"== {part}: {getattr(Bench, part).__doc__.splitlines()[0]}", flush=True)
            results[part] = {"machine": machine(), "rows": getattr(bench, part)()}
            if not options.quick:
                report.save(results)
    if not options.quick:
        report.publish(results)
        print(f"wrote {report.JSON_PATH}, {report.SVG_PATH} and the figures in README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
