"""The load: filling a key space, and running a generator on its own CPU against a server while its CPU time is read.

The generator is `kv_client bench`: it needs about 0.2 us for a pipelined request, so it hides neither server, and it reads
percentiles from a histogram. redis-benchmark is there to check it (`run.py --generator redis-benchmark`); with a pipeline
of 64 it is itself the limit at about 3 M requests a second. Both sides of a comparison always get the same one.
"""

import csv
import io
import json
import os
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from servers import ROOT, Server

KEYS = 1_000_000
KEY_BYTES = 16
VALUE_BYTES = 32
FILL_BATCH = 2_000


@dataclass
class Measured:
    """What one run gave."""

    ops_per_s: float
    server_us_per_op: float
    read_p99_us: float = 0.0
    write_p99_us: float = 0.0
    write_p999_us: float = 0.0
    write_max_us: float = 0.0


def fill(server: Server, keys: int = KEYS, value_bytes: int = VALUE_BYTES):
    """Writes keys `key:%012d` from 0 on, each once, and waits for every answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection:
        expected = 5 * keys
        failure = []

        def take_answers():
            received = 0
            while received < expected:
                answer = connection.recv(1 << 20)
                if not answer or answer.startswith(b"-"):
                    failure.append(answer[:200])
                    return
                received += len(answer)

        reader = threading.Thread(target=take_answers)
        reader.start()
        for start in range(0, keys, FILL_BATCH):
            connection.sendall(b"".join(
                b"*3\r\n$3\r\nSET\r\n$%d\r\nkey:%012d\r\n$%d\r\n%0*d\r\n" % (KEY_BYTES, key, value_bytes, value_bytes, key)
                for key in range(start, min(start + FILL_BATCH, keys))
            ))
        reader.join()
        if failure:
            raise RuntimeError(f"filling {server.name} failed: {failure[0]!r}")


@dataclass(frozen=True)
class Load:
    """What is asked of a server."""

    mix: str
    connections: int = 50
    pipeline: int = 1
    keys: int = KEYS
    distribution: str = "uniform"
    cpu: str = "1"


def kv_client(server: Server, load: Load, seconds: float) -> Measured:
    """Runs `kv_client bench`; a miss or an error makes the figure worthless, so it is one here too."""
    binary = os.environ.get("KV_CLIENT", str(ROOT / "target/release/kv_client"))
    with tempfile.TemporaryDirectory() as place:
        report_path = Path(place) / "report.json"
        before = server.cpu_seconds()
        subprocess.run(
            ["taskset", "-c", load.cpu, binary, f"--server=127.0.0.1:{server.port}", "bench",
             "--connections", str(load.connections), "--threads", "1", "--pipeline", str(load.pipeline),
             "--value-bytes", str(VALUE_BYTES), "--key-bytes", str(KEY_BYTES), "--keys", str(load.keys),
             "--distribution", load.distribution, "--mix", load.mix, "--seconds", str(seconds), "--json", str(report_path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )
        used = server.cpu_seconds() - before
        commands = json.loads(report_path.read_text())["commands"]
    wrong = {name: counts for name, counts in commands.items() if counts["not_found"] or counts["errors"]}
    if wrong:
        raise RuntimeError(f"{server.name}: keys that were not found, or errors: {wrong}")
    return Measured(
        sum(counts["ops_per_second"] for counts in commands.values()),
        used / sum(counts["ops"] for counts in commands.values()) * 1e6,
        commands.get("get", {}).get("p99_us", 0.0),
        *(commands.get("set", {}).get(f"{field}_us", 0.0) for field in ("p99", "p99.9", "max")),
    )


def redis_benchmark(server: Server, load: Load, seconds: float) -> Measured:
    """Runs redis-benchmark with one command; how many requests fit into `seconds` is found by a short run first."""
    command = load.mix.split(":")[0].upper()
    if "," in load.mix or load.distribution != "uniform":
        raise ValueError("redis-benchmark has no mixes and no distributions: use the generator kv_client")

    def requests_per_s(requests: int) -> float:
        said = subprocess.run(
            ["taskset", "-c", load.cpu, "redis-benchmark", "-p", str(server.port), "-c", str(load.connections),
             "-P", str(load.pipeline), "-n", str(requests), "-r", str(load.keys), "-d", str(VALUE_BYTES), "-t", command.lower(),
             "--csv"],
            capture_output=True, text=True, check=True,
        ).stdout
        row = next(row for row in csv.DictReader(io.StringIO(said)) if row["test"].split()[0].upper() == command)
        return float(row["rps"])

    requests = max(10_000, int(requests_per_s(20_000 * min(load.pipeline, 16)) * seconds))
    before = server.cpu_seconds()
    rate = requests_per_s(requests)
    return Measured(rate, (server.cpu_seconds() - before) / requests * 1e6)


GENERATORS = {"kv_client": kv_client, "redis-benchmark": redis_benchmark}
