"""The load: filling a key space, and running a generator on its own CPU against a server while its CPU time is read.

Two generators: redis-benchmark (which everyone has) where it is fast enough, and `kv_client bench` where a mix, a zipf
distribution or latency percentiles are needed. Both sides of a comparison always get the same one.
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
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def fill(server: Server, keys: int = KEYS):
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
                b"*3\r\n$3\r\nSET\r\n$%d\r\nkey:%012d\r\n$%d\r\n%032d\r\n" % (KEY_BYTES, key, VALUE_BYTES, key)
                for key in range(start, min(start + FILL_BATCH, keys))
            ))
        reader.join()
        if failure:
            raise RuntimeError(f"filling {server.name} failed: {failure[0]!r}")


def redis_benchmark(server: Server, command: str, connections: int, pipeline: int, requests: int, keys: int) -> Measured:
    """Runs redis-benchmark over the whole key space, pinned to CPU 1."""
    before = server.cpu_seconds()
    said = subprocess.run(
        ["taskset", "-c", "1", "redis-benchmark", "-p", str(server.port), "-c", str(connections), "-P", str(pipeline),
         "-n", str(requests), "-r", str(keys), "-d", str(VALUE_BYTES), "-t", command.lower(), "--csv"],
        capture_output=True, text=True, check=True,
    ).stdout
    used = server.cpu_seconds() - before
    row = next(row for row in csv.DictReader(io.StringIO(said)) if row["test"].split()[0].upper() == command.upper())
    return Measured(float(row["rps"]), used / requests * 1e6, float(row["p50_latency_ms"]), float(row["p99_latency_ms"]))


def kv_client_bench(server: Server, mix: str, connections: int, pipeline: int, seconds: float, keys: int, cpu: str = "1",
                    distribution: str = "uniform", extra: tuple[str, ...] = ()) -> tuple[Measured, dict]:
    """Runs `kv_client bench`; returns the sum and its whole report (histograms for each command)."""
    binary = os.environ.get("KV_CLIENT", str(ROOT / "target/release/kv_client"))
    with tempfile.TemporaryDirectory() as place:
        report_path = Path(place) / "report.json"
        before = server.cpu_seconds()
        subprocess.run(
            ["taskset", "-c", cpu, binary, f"--server=127.0.0.1:{server.port}", "bench", "--connections", str(connections),
             "--threads", "1", "--pipeline", str(pipeline), "--value-bytes", str(VALUE_BYTES), "--key-bytes", str(KEY_BYTES),
             "--keys", str(keys), "--distribution", distribution, "--mix", mix, "--seconds", str(seconds),
             "--json", str(report_path), *extra],
            capture_output=True, text=True, check=True,
        )
        used = server.cpu_seconds() - before
        report = json.loads(report_path.read_text())
    operations = report["operations"]
    return Measured(report["operations_per_second"], used / operations * 1e6), report
