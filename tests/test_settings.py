"""Settings: files in two syntaxes, flags, environment, CONFIG GET/SET/REWRITE, reload."""

import signal
import subprocess

import pytest
import redis

import node as nodes

USAGE = 2


def test_config_get_takes_patterns_and_knows_redis_names(server):
    with server.client() as client:
        assert client.config_get("port") == {"port": str(server.port)}
        assert set(client.config_get("tcp-*")) >= {"tcp-keepalive", "tcp-backlog"}
        assert client.config_get("hash-max-listpack-entries") == {"hash-max-listpack-entries": "512"}
        assert client.config_get("no-such-setting") == {}
        assert len(client.config_get("*")) > 100


def test_config_set_changes_all_or_nothing(server):
    with server.client() as client:
        assert client.config_set("timeout", "77", "tcp-keepalive", "123")
        assert client.config_get("timeout")["timeout"] == "77"
        assert client.config_get("tcp-keepalive")["tcp-keepalive"] == "123"
        with pytest.raises(redis.ResponseError):
            client.execute_command("CONFIG SET", "timeout", "5", "tcp-keepalive", "not a number")
        assert client.config_get("timeout")["timeout"] == "77"
        with pytest.raises(redis.ResponseError, match="Unknown option or number of arguments for CONFIG SET"):
            client.config_set("no-such-setting", "1")
        with pytest.raises(redis.ResponseError, match="can't set immutable config"):
            client.config_set("databases", "4")
        client.config_set("timeout", "0")


def test_the_longest_key_can_be_set_while_running(server):
    with server.client() as client:
        assert client.config_set("max_key_size", "10")
        assert client.set("short", "v")
        with pytest.raises(redis.ResponseError, match="max_key_size"):
            client.set("longer than ten", "v")
        assert client.config_set("max_key_size", "536870912")
        assert client.set("longer than ten", "v")


def test_remembered_redis_settings_are_returned_as_set(server):
    with server.client() as client:
        for name, value in (("hash-max-listpack-entries", "64"), ("zset-max-ziplist-value", "32"),
                            ("lua-time-limit", "4000")):
            assert client.config_set(name, value)
            assert client.config_get(name)[name] == value


def test_a_password_set_at_run_time_counts_from_then_on(make_node):
    node = make_node().start()
    with node.client() as client:
        assert client.config_set("requirepass", "secret")
        assert client.ping(), "a connection that was in stays in"
    with pytest.raises(redis.AuthenticationError):
        node.client().ping()
    with node.client(password="secret") as client:
        assert client.config_set("requirepass", "")
    assert node.client().ping()


def test_config_rewrite_keeps_comments_and_is_read_again(make_node):
    node = make_node()
    file = node.directory / "kv.conf"
    file.write_text("# written by hand\ntimeout 300\n\n# the last line\ntcp-keepalive 60\n")
    node.files = [str(file)]
    node.start()
    with node.client() as client:
        assert client.config_get("timeout")["timeout"] == "300"
        client.config_set("timeout", "301")
        assert client.config_rewrite()
    text = file.read_text()
    assert "# written by hand" in text and "# the last line" in text
    assert node.terminate() == 0
    node.start()
    with node.client() as client:
        assert client.config_get("timeout")["timeout"] == "301"
        assert client.config_get("tcp-keepalive")["tcp-keepalive"] == "60"


@pytest.mark.bowline
def test_config_rewrite_without_a_file_is_refused(server):
    with server.client() as client, pytest.raises(redis.ResponseError, match="without a config file"):
        client.config_rewrite()


@pytest.mark.bowline
class TestFiles:
    """kv_config.conf and what overrides it."""

    def test_both_syntaxes_mean_the_same(self, make_node):
        for text in ("max_connections=77\nserver_port={port}\nsync_wal=no\n",
                     "maxclients 77\nport {port}\nappendfsync no\n"):
            node = make_node()
            file = node.directory / "kv_config.conf"
            file.write_text(text.format(port=node.port))
            process = subprocess.Popen(
                [nodes.KV_SERVER, str(file), "--dir", str(node.data)], cwd=node.directory,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            node.process = process
            node.wait_until_ready()
            with node.client() as client:
                assert client.config_get("maxclients")["maxclients"] == "77"
                assert client.config_get("appendfsync")["appendfsync"] == "no"
            assert node.terminate() == 0

    def test_flags_override_the_environment_and_that_the_file(self, make_node):
        node = make_node(environment={"KV_PORT": "1"})
        file = node.directory / "kv.conf"
        file.write_text("port=2\n")
        node.files = [str(file)]
        node.start()
        with node.client() as client:
            assert client.config_get("port")["port"] == str(node.port)

    @pytest.mark.parametrize(
        "line, name",
        [("max_connections=many", "max_connections"), ("port=70000", "port"), ("no_such_setting=1", "no_such_setting"),
         ("durability=sometimes", "durability"), ("num_segments=63", "num_segments"), ("wal_file_size=12 parsecs",
          "wal_file_size")],
    )
    def test_a_wrong_line_is_named_and_the_server_does_not_start(self, make_node, line, name):
        node = make_node()
        file = node.directory / "kv.conf"
        file.write_text(f"# first line\n\n{line}\n")
        node.files = [str(file)]
        node.launch()
        assert node.wait() == USAGE
        said = node.printed()
        assert f"{file}:3" in said and name in said
        assert not node.data.exists(), "nothing may be made before the settings are known to be right"

    def test_a_wrong_flag_is_named(self, make_node):
        node = make_node("--durability", "sometimes").launch()
        assert node.wait() == USAGE
        assert "durability" in node.printed() and "always" in node.printed()

    def test_the_example_file_starts_a_server(self, make_node):
        example = nodes.ROOT / "kv_config.conf"
        node = make_node(files=[example]).start()
        with node.client() as client:
            assert client.set("k", "v")

    def test_redis_servers_own_arguments_are_understood(self, make_node):
        node = make_node("--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--loglevel", "notice",
                         "--databases", "16").start()
        with node.client() as client:
            assert client.config_get("save")["save"] == ""


@pytest.mark.bowline
def test_sighup_reads_the_file_again(make_node):
    node = make_node()
    file = node.directory / "kv.conf"
    file.write_text("timeout=100\n")
    node.files = [str(file)]
    node.start()
    file.write_text("timeout=200\n")
    node.send(signal.SIGHUP)
    with node.client() as client:
        nodes.until(lambda: client.config_get("timeout")["timeout"] == "200", "the new value")
        file.write_text("timeout=nonsense\n")
        node.send(signal.SIGHUP)
        nodes.until(lambda: "nonsense" in node.printed(), "a message about the wrong value")
        assert client.config_get("timeout")["timeout"] == "200"


@pytest.mark.bowline
def test_sighup_reopens_a_log_file_that_was_moved_away(make_node):
    node = make_node()
    log = node.directory / "kv.log"
    node.arguments += ["--logfile", str(log)]
    node.start()
    log.rename(node.directory / "kv.log.1")
    node.send(signal.SIGHUP)
    nodes.until(lambda: log.exists() and log.stat().st_size > 0, "a new log file")


@pytest.mark.bowline
def test_sigusr_moves_the_log_level(make_node):
    node = make_node("--loglevel", "info").start()
    with node.client() as client:
        node.send(signal.SIGUSR1)
        nodes.until(lambda: client.config_get("loglevel")["loglevel"] in ("debug", "verbose"), "a finer level")
        node.send(signal.SIGUSR2)
        nodes.until(lambda: client.config_get("loglevel")["loglevel"] in ("info", "notice"), "the level before")


@pytest.mark.bowline
def test_no_key_or_value_reaches_the_log(make_node):
    node = make_node("--loglevel", "debug").start()
    with node.client() as client:
        client.set("a-secret-key", "a-secret-value")
        client.get("a-secret-key")
        with pytest.raises(redis.ResponseError):
            client.incr("a-secret-key")
    assert node.terminate() == 0
    assert "a-secret" not in node.printed()


@pytest.mark.bowline
def test_durability_levels_are_asked_for_by_name_and_reported(server):
    with server.client() as client:
        assert client.config_get("durability")["durability"] == "always"
        assert client.execute_command("BL.DURABILITY") == b"always"
        assert client.execute_command("BL.DURABILITY", "none") == b"OK"
        assert client.execute_command("BL.DURABILITY") == b"none"
        assert client.set("k", "v")
        committed = client.execute_command("BL.SYNC")
        assert committed > 0
        assert client.execute_command("BL.AT", "always", "SET", "k", "w") == b"OK"
        client.execute_command("BL.DURABILITY", "default")
        assert client.execute_command("BL.DURABILITY") == b"always"
        with pytest.raises(redis.ResponseError):
            client.execute_command("BL.DURABILITY", "sometimes")


@pytest.mark.bowline
def test_versions_guard_an_optimistic_write(server):
    def fields(reply):
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        return {name.decode(): value for name, value in pairs}

    with server.client() as client:
        client.set("k", "one", ex=100)
        first = fields(client.execute_command("BL.ENTRY", "k"))
        assert first["size"] == 3 and first["expiry"] > first["updated"] >= first["created"] > 0
        second = client.execute_command("BL.CAS", "k", first["version"], "two")
        assert second > first["version"]
        assert client.get("k") == b"two"
        assert fields(client.execute_command("BL.ENTRY", "k"))["version"] == second
        assert client.execute_command("BL.CAS", "k", first["version"], "three") is None
        assert client.get("k") == b"two"
        assert client.execute_command("BL.ENTRY", "none") is None
        assert client.execute_command("BL.CAS", "none", second, "x") is None
        assert client.execute_command("BL.CAS", "none", 0, "made") > second
        assert client.get("none") == b"made"
