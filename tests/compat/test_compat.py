"""The differential test as part of the suite: KV_COMPAT_COMMANDS (default 20000), KV_COMPAT_SEED (default random)."""

import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest

import node as nodes
from compat import differential

SEED = int(os.environ.get("KV_COMPAT_SEED", random.randrange(2**32)))
COMMANDS = int(os.environ.get("KV_COMPAT_COMMANDS", "20000"))

pytestmark = pytest.mark.needs("redis-server")


class Redis:
    """Debian's redis-server, without persistence."""

    def __init__(self, directory, *arguments):
        self.port = nodes.free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--dir", directory, "--enable-debug-command", "yes",
             *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        stand_in = nodes.Node(Path(directory), port=self.port)
        stand_in.process = self.process
        stand_in.wait_until_ready()

    def stop(self):
        """Ends it at once: it holds nothing of value."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis_server(base_directory):
    """Makes reference servers, stopped at the end."""
    made = []

    def make(*arguments):
        made.append(Redis(tempfile.mkdtemp(dir=base_directory), *arguments))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def test_replies_are_the_same_as_those_of_redis(make_node, redis_server):
    ours = make_node("--enable-debug-command", "yes", "--databases", "16").start()
    said = []
    found = differential.run(ours.port, redis_server().port, SEED, COMMANDS, report=said.append)
    print("\n".join(said))
    assert not found, "\n".join(said)


def test_a_planted_difference_is_found_and_shrunk(redis_server):
    """The test of the test: two servers that differ in one limit only."""
    said = []
    found = differential.run(
        redis_server("--proto-max-bulk-len", "1mb").port, redis_server().port, seed=5, commands=20_000, report=said.append
    )
    assert found == 1
    shown = [line for line in said if line.startswith(("  A:", "  B:"))]
    assert 1 <= len(shown) <= 3 and b"SETRANGE".decode() in shown[-1].upper(), said
