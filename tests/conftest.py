"""Fixtures: `server` is one process shared by a module's tests and emptied before each; `make_node` makes fresh ones."""

import os
import tempfile

import pytest

import node as nodes


def pytest_collection_modifyitems(items):
    """Tests that cannot run here say why, each by the marker it carries."""
    for item in items:
        if nodes.STAND_IN and item.get_closest_marker("bowline"):
            item.add_marker(pytest.mark.skip(reason="needs kv_server: KV_SERVER names redis-server"))
        for marker in item.iter_markers("needs"):
            for name in marker.args:
                if nodes.tool(name) is None:
                    item.add_marker(pytest.mark.skip(reason=f"{name} is not installed"))


def pytest_configure(config):
    """Names the markers; refuses to run without the binary that is to be tested."""
    config.addinivalue_line("markers", "bowline: behaviour that only kv_server has")
    config.addinivalue_line("markers", "needs(tool, ...): programs of the system without which the test is skipped")
    for variable, path in (("KV_SERVER", nodes.KV_SERVER), ("KV_CLIENT", nodes.KV_CLIENT)):
        if nodes.tool(path) is None and not (variable == "KV_CLIENT" and nodes.STAND_IN):
            pytest.exit(f"{path} is not there: run `cargo build --release`, or set {variable}", returncode=4)


@pytest.fixture(scope="session")
def base_directory():
    """Where data directories go: KV_TEST_DIR, or the system's place for temporary files."""
    with tempfile.TemporaryDirectory(prefix="bowline-test-", dir=os.environ.get("KV_TEST_DIR")) as path:
        yield path


@pytest.fixture
def make_node(base_directory):
    """Makes nodes, each in a directory of its own (or the one given), and kills what is left of them at the end."""
    made = []

    def make(*arguments, directory=None, **options) -> nodes.Node:
        place = directory or tempfile.mkdtemp(dir=base_directory)
        made.append(nodes.Node(place, *arguments, **options))
        return made[-1]

    yield make
    for made_node in made:
        made_node.kill()


@pytest.fixture(scope="module")
def shared_node(base_directory):
    """One running server for all tests of a module."""
    running = nodes.Node(tempfile.mkdtemp(dir=base_directory)).start()
    yield running
    running.kill()


@pytest.fixture
def server(shared_node):
    """The module's server, empty."""
    with shared_node.client() as client:
        client.flushall()
    return shared_node


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(server, request):
    """A redis-py client of the module's server, once for each protocol version; it returns bytes."""
    with server.client(protocol=request.param) as connected:
        yield connected
