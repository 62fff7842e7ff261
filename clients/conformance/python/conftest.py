"""What the Python tests share: the server under test, its channels, and the generated messages.

The server is started by `clients/conformance/run`, which says where it is in the environment:
PRISM_TARGET (host:port), PRISM_PID (to freeze it), PRISM_NAMESPACE (ready for use).
"""

import contextlib
import itertools
import os
import signal
import sys
import time
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent / "gen"))

TARGET = os.environ.get("PRISM_TARGET", "")
DURABILITY = os.environ.get("PRISM_DURABILITY", "best-effort")
# What every acknowledged write must say.
PROMISED = f"DURABILITY_{DURABILITY.upper().replace('-', '_')}"
NAMESPACE = os.environ.get("PRISM_NAMESPACE", "conformance")
# Enough for a debug build on a busy machine; no test waits for it unless something is wrong.
PATIENCE_S = 30
MESSAGE_BYTES_MAX = 17 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # A channel of its own for every test, not a connection shared behind the scenes.
    ("grpc.use_local_subchannel_pool", 1),
]

_ids = itertools.count()


def pytest_configure(config):
    if not TARGET:
        raise pytest.UsageError("PRISM_TARGET is not set: run clients/conformance/run, which starts the server")


class Client:
    """One channel and the stubs on it."""

    def __init__(self, channel):
        from prism.admin.v1 import namespaces_pb2_grpc
        from prism.keyvalue.v1 import keyvalue_pb2_grpc

        self.channel = channel
        self.kv = keyvalue_pb2_grpc.KeyValueStub(channel)
        self.namespaces = namespaces_pb2_grpc.NamespacesStub(channel)


@pytest.fixture
def client():
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        yield Client(channel)


@pytest.fixture
def fresh_id():
    """An id that no other test of this run uses."""
    return f"py-{os.getpid()}-{next(_ids)}"


@contextlib.contextmanager
def frozen_server():
    """Within the block the server's process does not run: what is sent waits in the kernel."""
    pid = int(os.environ["PRISM_PID"])
    os.kill(pid, signal.SIGSTOP)
    try:
        until_stopped(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until_stopped(pid):
    """The signal takes effect a moment after it was sent, thread by thread."""
    for _ in range(10_000):
        threads = Path(f"/proc/{pid}/task").iterdir()
        if all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads):
            return
        time.sleep(0.001)
    raise AssertionError("the server does not stop")


@contextlib.contextmanager
def scratch_namespace(client, name):
    """A namespace for one test, deleted afterwards."""
    from prism.admin.v1 import namespaces_pb2 as admin

    client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S)
    try:
        yield name
    finally:
        client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)


def namespace_yaml(name):
    """The smallest useful namespace file."""
    return (
        f"namespace: {name}\n"
        "team: conformance\n"
        "client_api: keyvalue\n"
        "needs:\n"
        "  durability: best-effort\n"
        "  max_message_size: 8MB\n"
    )


def status_details(error):
    """The messages in `grpc-status-details-bin`, by their short type name."""
    from google.rpc import error_details_pb2, status_pb2
    from prism.admin.v1 import namespaces_pb2

    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert raw is not None, "the error carries no grpc-status-details-bin"
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = {}
    for detail in status.details:
        package, _, name = detail.type_url.rpartition("/")[2].rpartition(".")
        message = getattr(error_details_pb2 if package == "google.rpc" else namespaces_pb2, name)()
        assert detail.Unpack(message)
        found[name] = message
    return found
