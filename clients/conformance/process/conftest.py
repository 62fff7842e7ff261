"""What the tests of the process share: servers of their own, in folders of their own."""

import os
import sys
from pathlib import Path

import grpc
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "python" / "gen")]

from server import Server  # noqa: E402

BINARY = Path(os.environ.get("PRISM_BINARY", ""))
OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1)]
PATIENCE_S = 30


def pytest_configure(config):
    if not BINARY.is_file():
        raise pytest.UsageError("PRISM_BINARY is not set: run clients/conformance/run")


class Client:
    """One channel and the stubs on it."""

    def __init__(self, address):
        from prism.admin.v1 import namespaces_pb2_grpc
        from prism.keyvalue.v1 import keyvalue_pb2_grpc

        self.channel = grpc.insecure_channel(address, OPTIONS)
        self.kv = keyvalue_pb2_grpc.KeyValueStub(self.channel)
        self.namespaces = namespaces_pb2_grpc.NamespacesStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def create(self, name, durability="best-effort"):
        from prism.admin.v1 import namespaces_pb2 as admin

        yaml = f"namespace: {name}\nteam: t\nclient_api: keyvalue\nneeds:\n  durability: {durability}\n"
        self.namespaces.Create(admin.CreateRequest(yaml=yaml), timeout=PATIENCE_S)

    def names(self):
        from prism.admin.v1 import namespaces_pb2 as admin

        listed = self.namespaces.List(admin.ListRequest(), timeout=PATIENCE_S)
        return [namespace.name for namespace in listed.namespaces]

    def put(self, namespace, id, value):
        from prism.keyvalue.v1 import keyvalue_pb2 as kv

        items = [kv.Item(key=b"k", value=value)]
        self.kv.Put(kv.PutRequest(namespace=namespace, id=id, items=items), timeout=PATIENCE_S)

    def value(self, namespace, id):
        """The value of the only item; None where there is none."""
        from prism.keyvalue.v1 import keyvalue_pb2 as kv

        items = self.kv.Get(kv.GetRequest(namespace=namespace, id=id), timeout=PATIENCE_S).items
        return items[0].value if items else None


@pytest.fixture
def new_server(tmp_path):
    """Makes servers; those that still run at the end are ended there."""
    made = []

    def make(*options, **more):
        server = Server(BINARY, tmp_path, *options, **more)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()
