"""kv_server --repair from outside: what it says, what it asks, what it changes, and a kill -9 in the middle of it."""

import os
import pty
import signal
import subprocess

import pytest

import node as nodes

OK, USAGE, LOCKED, DAMAGED, NOT_REPAIRED = 0, 2, 3, 4, 5
KEYS = 400

pytestmark = pytest.mark.bowline


def contents(directory) -> dict:
    """Every file below a directory; the lock says only who was there last."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path): path.read_bytes() for path in files}


def repair(node, *arguments, **options) -> subprocess.CompletedProcess:
    """Runs kv_server --repair on a node's directory, without a terminal."""
    line = [nodes.KV_SERVER, "--repair", str(node.data), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False, **options)


def check(node, *arguments) -> subprocess.CompletedProcess:
    """Runs kv_server --check on a node's directory."""
    line = [nodes.KV_SERVER, "--check", str(node.data), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, timeout=120, check=False)


def damage(path, text: bytes):
    """Turns a bit over in the first place where `text` stands."""
    content = bytearray(path.read_bytes())
    at = content.find(text)
    assert at >= 0, f"{text} is not in {path}"
    content[at] ^= 0x10
    path.write_bytes(content)


def value(number: int) -> str:
    """A value that takes about half a block; what names it stands in it twice, and in two blocks at most once."""
    return 2 * (f"value:{number}:" + "v" * 1000)


def bring_back(node, before: dict):
    """Makes the directory of a node what it was."""
    for path in [path for path in node.data.rglob("*") if path.is_file()]:
        path.unlink()
    for path, content in before.items():
        with open(path, "wb") as file:
            file.write(content)


@pytest.fixture
def damaged(make_node):
    """A stopped node whose block file has lost a record that no log has any more."""
    node = make_node("--wal_file_size", "1mb", "--wal_buffer_size", "64kb").start()
    with node.client() as client:
        with client.pipeline(transaction=False) as pipeline:
            for number in range(KEYS):
                pipeline.set(f"key:{number}", value(number))
            pipeline.execute()
        client.execute_command("SAVE")
        # The log goes on in other files, and those before are written over.
        for _ in range(6):
            with client.pipeline(transaction=False) as pipeline:
                for turn in range(200):
                    pipeline.set("turn", f"{turn}:" + "t" * 4000)
                pipeline.execute()
        client.execute_command("SAVE")
    assert node.terminate() == OK
    for path in nodes.log_files(node):
        assert b"value:77:" not in path.read_bytes(), "the test needs a log without that value"
    damage(node.data / "store.blocks", b"value:77:")
    return node


def test_it_says_what_would_be_lost_and_changes_nothing_without_a_yes(damaged):
    before = contents(damaged.data)
    assert check(damaged).returncode == DAMAGED
    done = repair(damaged)
    said = done.stdout.decode()
    assert done.returncode == NOT_REPAIRED, said + done.stderr.decode()
    assert b"nothing was changed" in done.stderr
    assert "store.blocks at byte" in said and "It would lose" in said and "entries:" in said
    assert contents(damaged.data) == before
    damaged.launch()
    assert damaged.wait() == DAMAGED


def test_with_yes_the_rest_is_served_and_the_old_files_stay(damaged):
    before = contents(damaged.data)
    done = repair(damaged, "--yes")
    assert done.returncode == OK, done.stderr
    assert b"repaired: " in done.stdout
    assert check(damaged).returncode == OK
    kept = [content for path, content in contents(damaged.data).items() if ".damaged-" in path]
    assert all(content in kept for path, content in before.items())
    damaged.start()
    with damaged.client() as client:
        found = {number for number in range(KEYS) if client.get(f"key:{number}") == value(number).encode()}
        lost = set(range(KEYS)) - found
        assert 77 in lost and len(lost) < 5, lost
        assert all(client.get(f"key:{number}") is None for number in lost)
        client.set("after", "the repair")
    damaged.kill()
    damaged.start()
    with damaged.client() as client:
        assert client.get("after") == b"the repair" and client.dbsize() == KEYS - len(lost) + 2
    assert damaged.terminate() == OK
    assert repair(damaged).returncode == OK, "a sound store needs no answer"


@pytest.mark.parametrize("answer, code", [(b"yes\n", OK), (b"y\n", NOT_REPAIRED), (b"\x04", NOT_REPAIRED)])
def test_on_a_terminal_it_asks(damaged, answer, code):
    before = contents(damaged.data)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [nodes.KV_SERVER, "--repair", str(damaged.data)], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"Type yes:" not in said:
        said += os.read(ours, 4096)
    os.write(ours, answer)
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # nobody has the other end any more
            break
        if not part:
            break
        said += part
    assert process.wait(60) == code, said
    os.close(ours)
    assert (contents(damaged.data) == before) == (code != OK)
    assert check(damaged).returncode == (OK if code == OK else DAMAGED)


def test_a_server_that_runs_and_files_elsewhere_are_told_apart(make_node, tmp_path):
    block_file, log = tmp_path / "blocks", tmp_path / "log"
    elsewhere = ("--block-file", block_file, "--wal_directory", log)
    node = make_node(*elsewhere).start()
    with node.client() as client:
        for number in range(50):
            client.set(f"key:{number}", value(number))
    done = repair(node, "--yes", *elsewhere)
    assert done.returncode == LOCKED and str(node.pid()).encode() in done.stderr
    assert node.terminate() == OK
    damage(block_file, b"value:7:")
    assert check(node, *elsewhere).returncode == DAMAGED
    done = repair(node, "--yes", *elsewhere)
    # The log still has everything.
    assert done.returncode == OK and b"Nothing that was acknowledged would be lost" in done.stdout, done.stdout
    assert check(node, *elsewhere).returncode == OK
    node.start()
    with node.client() as client:
        assert all(client.get(f"key:{number}") == value(number).encode() for number in range(50))


def test_killed_at_any_moment_it_leaves_the_old_store_or_the_new_one(damaged):
    if nodes.tool("strace") is None:
        pytest.skip("strace is not installed")
    before = contents(damaged.data)
    codes = []
    calls = {"fdatasync": range(1, 60, 7), "rename,renameat,renameat2": range(1, 20), "unlink,unlinkat": range(1, 4)}
    for call, turns in calls.items():
        for turn in turns:
            bring_back(damaged, before)
            trace = ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={turn}"]
            line = [*trace, nodes.KV_SERVER, "--repair", str(damaged.data), "--yes"]
            done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
            if done.returncode == OK:
                break
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
            codes.append(repair(damaged).returncode)
            assert codes[-1] in (OK, NOT_REPAIRED)
            old = set(before.values()) - {b""}
            assert old <= set(contents(damaged.data).values()), f"{call} {turn}: something of the old store is gone"
            if codes[-1] == OK:
                damaged.start()
                with damaged.client() as client:
                    assert client.dbsize() > KEYS - 5
                damaged.kill()
    assert NOT_REPAIRED in codes and OK in codes, codes
