"""kv_client as a shell user meets it: words, outputs, exit codes, environment, bytes, scripts."""

import json
import os

import pytest

from node import free_port, kv_client

pytestmark = pytest.mark.bowline

OK, NOT_FOUND, USAGE, CONNECTION, SERVER_ERROR = 0, 1, 2, 3, 4


@pytest.fixture
def run(server):
    """Runs the client against the module's server."""
    return lambda *words, **options: kv_client(*words, port=server.port, **options)


def test_put_get_delete_exists_size_ping(run):
    assert (run("ping").stdout, run("ping").returncode) == (b"PONG\n", OK)
    assert (run("put", "k", "a value").stdout, run("put", "k", "a value").returncode) == (b"OK\n", OK)
    assert (run("get", "k").stdout, run("get", "k").returncode) == (b"a value\n", OK)
    assert run("size").stdout.strip().endswith(b"1")
    assert (run("exists", "k").stdout, run("exists", "k").returncode) == (b"true\n", OK)
    assert run("delete", "k").returncode == OK
    assert (run("exists", "k").stdout, run("exists", "k").returncode) == (b"false\n", NOT_FOUND)


def test_what_is_missing_prints_nothing_and_exits_with_one(run):
    done = run("get", "none")
    assert done.returncode == NOT_FOUND and done.stdout == b""
    assert run("delete", "none").returncode == NOT_FOUND


def test_wrong_usage_exits_with_two(run):
    for words in (("put", "k"), ("get",), ("--no-such-flag", "ping"), ("--server=", "ping"), ("bench", "--mix", "nonsense")):
        done = run(*words)
        assert done.returncode == USAGE, (words, done)
        assert done.stderr


def test_no_server_exits_with_three_and_says_where_it_looked():
    port = free_port()
    done = kv_client("get", "k", port=port)
    assert done.returncode == CONNECTION
    assert str(port).encode() in done.stderr


def test_an_error_from_the_server_exits_with_four(run):
    run("put", "text", "abc")
    done = run("incr", "text")
    assert done.returncode == SERVER_ERROR
    assert b"not an integer" in done.stderr + done.stdout


def test_the_server_is_named_by_flag_or_environment(server):
    assert kv_client(f"--server=127.0.0.1:{server.port}", "ping", environment={"KV_PORT": "1"}).returncode == OK
    assert kv_client("ping", environment={"KV_HOST": "127.0.0.1", "KV_PORT": str(server.port)}).returncode == OK
    loud = kv_client("ping", port=server.port, environment={"KV_VERBOSE": "1"})
    assert loud.returncode == OK and str(server.port).encode() in loud.stderr and loud.stdout == b"PONG\n"


def test_a_unix_socket_is_reached(make_node):
    node = make_node()
    path = str(node.directory / "kv.sock")
    node.arguments += ["--unixsocket", path]
    node.start()
    assert kv_client("-s", path, "put", "k", "v").stdout == b"OK\n"
    assert kv_client("-s", path, "get", "k").stdout == b"v\n"


def test_a_password_is_sent(make_node):
    node = make_node("--requirepass", "secret").start()
    assert kv_client("get", "k", port=node.port).returncode == SERVER_ERROR
    assert kv_client("-a", "secret", "ping", port=node.port).returncode == OK


def test_any_byte_goes_in_by_stdin_and_out_raw(run):
    value = bytes(range(256)) * 1000
    assert run("-x", "put", "bytes", stdin=value).stdout == b"OK\n"
    assert run("--raw", "get", "bytes").stdout == value


def test_json_output_is_json(run):
    run("put", "k", "v")
    assert json.loads(run("--json", "get", "k").stdout) is not None
    assert json.loads(run("--json", "mget", "k", "none").stdout) is not None


def test_other_words_are_commands(run):
    assert run("set", "n", "41").returncode == OK
    assert b"42" in run("incr", "n").stdout
    assert run("mget", "n", "none").returncode == OK


def test_flush_and_stats_and_test(run):
    run("put", "k", "v")
    stats = run("stats")
    assert stats.returncode == OK and len(stats.stdout.splitlines()) > 5
    tested = run("test")
    assert tested.returncode == OK and b"OK" in tested.stdout
    assert run("get", "k").stdout == b"v\n", "the self-test touched someone else's key"
    assert run("flush").returncode == OK
    assert run("size").stdout.strip().endswith(b"0")


def test_a_file_of_commands_is_run_from_a_pipe(run):
    script = b"".join(b"SET line:%d value:%d\n" % (i, i) for i in range(2000)) + b'PUT "two words" "x\\ny"\nDBSIZE\n'
    done = run(stdin=script)
    assert done.returncode == OK, done.stderr
    assert done.stdout.strip().endswith(b"2001")
    assert run("get", "line:1999").stdout == b"value:1999\n"
    assert run("--raw", "get", "two words").stdout == b"x\ny"


def test_the_load_generator_reports_table_json_and_plot(run, tmp_path):
    report, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    done = run("bench", "--connections", "4", "--pipeline", "4", "--requests", "20000", "--keys", "1000",
               "--value-bytes", "32", "--mix", "get:90,set:10", "--distribution", "zipf", "--seed", "7",
               "--json", str(report), "--svg", str(plot))
    assert done.returncode == OK, done.stderr
    assert b"p99" in done.stdout
    assert json.loads(report.read_text())
    assert plot.read_text().lstrip().startswith(("<svg", "<?xml"))
    assert os.path.getsize(plot) > 1000
