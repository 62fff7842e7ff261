"""Limits agree: what a namespace file may ask for, every call can have."""

import time

import grpc
import pytest
from conftest import PATIENCE_S
from prism.admin.v1 import namespaces_pb2 as admin
from prism.admin.v1 import namespaces_pb2_grpc
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from prism.keyvalue.v1 import keyvalue_pb2_grpc

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
MIB = 1 << 20
STRONG = ("--embedded", "sqlite", "--shards", "1", "--set", "wal.allow_unsafe_filesystem=true")


def yaml(name, durability, size):
    return f"namespace: {name}\nclient_api: keyvalue\nneeds: {{durability: {durability}, max_message_size: {size}}}\n"


def written(store, put):
    """Writes, and tries again as the answer says while the log makes room: a value may fill a whole segment."""
    for _ in range(100):
        try:
            return store.Put(put, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or "try again" not in error.details():
                raise
            time.sleep(0.1)
    raise AssertionError("the log made no room within 10 s")


@pytest.mark.parametrize(
    ("settings", "durability", "refused", "sentence", "allowed", "length"),
    [
        ([], "strong", "17MiB", "exceeds limit (16MiB)", "16MiB", 16 * MIB),
        (["limits.message_bytes_max=64MiB"], "best-effort", "32MiB", "exceeds limit (16MiB)", "16MiB", 16 * MIB),
        (["limits.message_bytes_max=1MiB"], "best-effort", "1MiB", "exceeds limit (1016KiB)", "1016KiB", 1016 << 10),
        (["wal.segment_bytes=4MiB"], "strong", "8MB", "of durability strong, whose writes go through the log", None, None),
    ],
    ids=["default", "large messages", "small messages", "small segments"],
)
def test_the_largest_value_that_a_file_may_ask_for_can_be_written_and_read(
    new_server, settings, durability, refused, sentence, allowed, length
):
    options = [word for setting in settings for word in ("--set", setting)]
    with new_server(*STRONG, *options) as server, grpc.insecure_channel(server.address, UNBOUNDED) as channel:
        namespaces = namespaces_pb2_grpc.NamespacesStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            namespaces.Create(admin.CreateRequest(yaml=yaml("limits", durability, refused)), timeout=PATIENCE_S)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in error.value.details()
        if allowed is None:
            # The sentence names the limit, which is allowed.
            allowed = error.value.details().split("(")[2].split(")")[0]
            length = int(allowed.removesuffix("KiB").removesuffix("B")) * (1024 if "KiB" in allowed else 1)
        namespaces.Create(admin.CreateRequest(yaml=yaml("limits", durability, allowed)), timeout=PATIENCE_S)
        store = keyvalue_pb2_grpc.KeyValueStub(channel)
        # The longest id and the longest key: nothing of the call is left out.
        item = kv.Item(key=b"k" * 1024, value=bytes([7]) * length)
        put = kv.PutRequest(namespace="limits", id="i" * 1024, items=[item])
        put.idempotency_token.token = b"t" * 64
        written(store, put)
        reply = store.Get(kv.GetRequest(namespace="limits", id=put.id), timeout=PATIENCE_S)
        assert [(item.key, len(item.value)) for item in reply.items] == [(b"k" * 1024, length)]
        entries = [entry for page in store.Scan(kv.ScanRequest(namespace="limits"), timeout=PATIENCE_S) for entry in page.entries]
        assert [len(entry.items[0].value) for entry in entries] == [length]
        item.value += b"x"
        with pytest.raises(grpc.RpcError) as error:
            store.Put(kv.PutRequest(namespace="limits", id="i", items=[item]), timeout=PATIENCE_S)
        assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
