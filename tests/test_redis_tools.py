"""The tools that every Redis user has: redis-cli and redis-benchmark."""

import csv
import io
import subprocess

import pytest

import node as nodes


def run(tool: str, server, *words, stdin=b"") -> subprocess.CompletedProcess:
    """Runs a tool of the Redis distribution against the server."""
    return subprocess.run([nodes.tool(tool), "-p", str(server.port), *map(str, words)], input=stdin, capture_output=True,
                          timeout=300, check=False)


@pytest.mark.needs("redis-cli")
class TestRedisCli:
    """redis-cli, one-shot and piped."""

    def test_it_writes_and_reads(self, server):
        assert run("redis-cli", server, "SET", "k", "v").stdout == b"OK\n"
        assert run("redis-cli", server, "GET", "k").stdout == b"v\n"
        assert run("redis-cli", server, "-3", "--json", "MGET", "k", "none").stdout.strip() == b'["v",null]'
        assert b"unknown command" in run("redis-cli", server, "NOSUCH").stdout

    def test_a_script_from_a_pipe_runs(self, server):
        script = b"".join(b"SET key%d value%d\n" % (i, i) for i in range(1000)) + b"DBSIZE\n"
        assert run("redis-cli", server, stdin=script).stdout.splitlines()[-1] == b"1000"

    def test_mass_insertion_reports_no_error(self, server):
        from wire import encode

        payload = b"".join(encode("SET", f"k{i}", f"v{i}") for i in range(50_000))
        done = run("redis-cli", server, "--pipe", stdin=payload)
        assert b"errors: 0, replies: 50000" in done.stdout
        assert run("redis-cli", server, "DBSIZE").stdout == b"50000\n"

    def test_info_scan_and_latency_modes_work(self, server):
        run("redis-cli", server, "MSET", "a", "1", "b", "2")
        assert b"redis_version:" in run("redis-cli", server, "INFO").stdout
        assert sorted(run("redis-cli", server, "--scan").stdout.split()) == [b"a", b"b"]
        assert run("redis-cli", server, "COMMAND", "COUNT").returncode == 0
        assert run("redis-cli", server, "CONFIG", "GET", "maxmemory-policy").stdout.split()[1] == b"noeviction"


@pytest.mark.needs("redis-benchmark")
@pytest.mark.parametrize("options", [("-P", 1), ("-P", 16), ("-P", 64, "-c", 200), ("-d", 10_000)])
def test_redis_benchmark_runs_through(server, options):
    done = run("redis-benchmark", server, "-t", "ping,set,get,incr,mset", "-n", 20_000, "-r", 1000, "--csv", "-q", *options)
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(io.StringIO(done.stdout.decode())))
    measured = {row[0]: float(row[1]) for row in rows[1:] if len(row) > 1}
    assert len(measured) >= 5 and all(rate > 0 for rate in measured.values()), done.stdout
