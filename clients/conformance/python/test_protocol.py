"""gRPC itself, through grpcio: deadlines, cancellation, sizes, metadata, compression, many streams at once."""

import concurrent.futures
import random
import threading
import time

import grpc
import pytest
from conftest import MESSAGE_BYTES_MAX, NAMESPACE, OPTIONS, PATIENCE_S, TARGET, Client, frozen_server, scratch_namespace
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from test_keyvalue import get, pairs, put


def test_deadline_exceeded_while_the_server_is_frozen(client, fresh_id):
    put(client, fresh_id, [(b"k", b"v")])
    with frozen_server():
        with pytest.raises(grpc.RpcError) as caught:
            client.kv.Get(kv.GetRequest(namespace=NAMESPACE, id=fresh_id), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.RpcError) as caught:
            list(client.kv.Scan(kv.ScanRequest(namespace=NAMESPACE), timeout=0.2))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert pairs(get(client, fresh_id)) == [(b"k", b"v")], "the connection outlives its late calls"


def test_cancel_of_a_unary_call(client, fresh_id):
    put(client, fresh_id, [(b"k", b"v")])
    request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id)
    with frozen_server():
        calls = [client.kv.Get.future(request, timeout=PATIENCE_S) for _ in range(20)]
        assert all(call.cancel() for call in calls[::2])
        assert all(call.cancelled() for call in calls[::2])
    for call in calls[1::2]:
        assert pairs(call.result()) == [(b"k", b"v")], "a cancelled call takes no other along"
    assert pairs(get(client, fresh_id)) == [(b"k", b"v")]


def test_cancel_in_the_middle_of_a_scan():
    # Windows that do not grow, and data that no compression shrinks: the server cannot have sent all of it when the
    # cancel comes.
    options = [*OPTIONS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
    with grpc.insecure_channel(TARGET, options) as channel, scratch_namespace(client := Client(channel), "py-cancel") as name:
        for n in range(64):
            put(client, f"id-{n}", [(b"k", random.Random(n).randbytes(65536))], namespace=name)
        request = kv.ScanRequest(namespace=name, selection=kv.Selection(item_limit=1))
        for _ in range(20):
            call = client.kv.Scan(request, timeout=PATIENCE_S)
            first = next(call)
            assert len(first.entries) == 1
            call.cancel()
            with pytest.raises(grpc.RpcError) as caught:
                for _ in call:
                    pass
            assert caught.value.code() == grpc.StatusCode.CANCELLED
        whole = list(client.kv.Scan(request, timeout=PATIENCE_S))
        assert sum(len(page.entries) for page in whole) == 64, "the connection outlives its cancelled calls"


def test_a_slow_reader_gets_everything(client):
    """The stream is larger than every window: the server must wait for the reader, and lose nothing."""
    values = [random.Random(n).randbytes(1 << 20) for n in range(24)]  # No compression shrinks them.
    with scratch_namespace(client, "py-slow") as name:
        for n, value in enumerate(values):
            put(client, f"id-{n}", [(b"k", value)], namespace=name)
        call = client.kv.Scan(kv.ScanRequest(namespace=name, selection=kv.Selection(item_limit=1)), timeout=60)
        seen = set()
        for page in call:
            for entry in page.entries:
                n = int(entry.id.removeprefix("id-"))
                assert entry.items[0].value == values[n]
                seen.add(n)
            # Not a wait for anything: this is what makes the reader slow.
            time.sleep(0.01)
        assert seen == set(range(24))


def test_four_mebibytes_both_ways(client, fresh_id):
    value = bytes(range(256)) * (4 << 12)
    assert len(value) == 4 << 20
    put(client, fresh_id, [(b"large", value)])
    (item,) = get(client, fresh_id).items
    assert item.key == b"large" and item.value == value
    for page in client.kv.Scan(kv.ScanRequest(namespace=NAMESPACE), timeout=PATIENCE_S):
        for entry in page.entries:
            if entry.id == fresh_id:
                assert entry.items[0].value == value


def test_a_message_beyond_the_maximum_is_refused(client, fresh_id):
    with pytest.raises(grpc.RpcError) as caught:
        put(client, fresh_id, [(b"k", b"\x00" * MESSAGE_BYTES_MAX)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    put(client, fresh_id, [(b"k", b"small")])
    assert pairs(get(client, fresh_id)) == [(b"k", b"small")]


def test_metadata_is_accepted_and_readable(client, fresh_id):
    metadata = (("x-request-id", "abc 123"), ("x-trace-bin", bytes(range(256))), ("x-twice", "1"), ("x-twice", "2"))
    request = kv.PutRequest(namespace=NAMESPACE, id=fresh_id, items=[kv.Item(key=b"k", value=b"v")])
    response, call = client.kv.Put.with_call(request, metadata=metadata, timeout=PATIENCE_S)
    assert response.HasField("result")
    assert call.code() == grpc.StatusCode.OK
    for key, value in (*call.initial_metadata(), *call.trailing_metadata()):
        assert key == key.lower()
        assert isinstance(value, bytes if key.endswith("-bin") else str)


def test_metadata_beyond_the_maximum_is_refused(client, fresh_id):
    with frozen_server():
        # What is open beside it on the connection goes on.
        request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id)
        neighbour = client.kv.Get.future(request, timeout=PATIENCE_S)
        refused = client.kv.Get.future(request, timeout=PATIENCE_S, metadata=[("x-large", "h" * (20 << 10))])
    assert refused.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN), refused
    assert pairs(neighbour.result()) == []


def test_metadata_beyond_all_bounds_ends_its_connection_only(client, fresh_id):
    with pytest.raises(grpc.RpcError):
        get(client, fresh_id, metadata=[("x-huge", "h" * (64 << 10))])
    assert pairs(get(client, fresh_id, wait_for_ready=True)) == []


def test_gzip_requests(fresh_id):
    value = b"compressible " * 20_000
    with grpc.insecure_channel(TARGET, OPTIONS, compression=grpc.Compression.Gzip) as channel:
        client = Client(channel)
        put(client, fresh_id, [(b"k", value)])
        assert pairs(get(client, fresh_id)) == [(b"k", value)]
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        assert pairs(get(Client(channel), fresh_id)) == [(b"k", value)]


def test_a_thousand_concurrent_streams_on_one_channel(client, fresh_id):
    put(client, f"{fresh_id}-warm", [(b"k", b"v")])
    with frozen_server():
        # All are open at once: none can be answered before the last one is sent.
        puts = []
        for n in range(1000):
            item = kv.Item(key=b"k", value=f"value {n}".encode())
            request = kv.PutRequest(namespace=NAMESPACE, id=f"{fresh_id}-{n}", items=[item])
            puts.append(client.kv.Put.future(request, timeout=PATIENCE_S))
    for call in puts:
        assert call.result().HasField("result")
    with frozen_server():
        gets = [
            client.kv.Get.future(kv.GetRequest(namespace=NAMESPACE, id=f"{fresh_id}-{n}"), timeout=PATIENCE_S)
            for n in range(1000)
        ]
    for n, call in enumerate(gets):
        assert pairs(call.result()) == [(b"k", f"value {n}".encode())], "each reply belongs to its own request"


def test_many_channels_see_the_same_data(fresh_id):
    """With several shards the kernel spreads connections over them; the data must not depend on which."""
    channels = [grpc.insecure_channel(TARGET, OPTIONS) for _ in range(12)]
    try:
        clients = [Client(channel) for channel in channels]
        for n, client in enumerate(clients):
            put(client, fresh_id, [(f"k{n:02}".encode(), b"v")])
        for client in clients:
            assert len(get(client, fresh_id).items) == len(clients)
    finally:
        for channel in channels:
            channel.close()


def test_sixteen_threads_read_large_pages_on_one_channel_and_write_beside_them(fresh_id):
    """All read as fast as they can; no answer is lost, and every write is what its caller was told."""
    value = b"v" * 1_000_000
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        client = Client(channel)
        put(client, fresh_id, [(b"k", value)])

        def work(number):
            for round in range(12):
                assert pairs(get(client, fresh_id)) == [(b"k", value)]
                put(client, f"{fresh_id}-{number}-{round}", [(b"k", b"small")])

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for done in [pool.submit(work, number) for number in range(16)]:
                done.result()


def test_more_is_asked_for_than_may_wait_and_every_answer_comes(fresh_id):
    """A hundred pages of 1 MB at once, three times what the gateway lets wait for a connection."""
    value = b"v" * 1_000_000
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        client = Client(channel)
        put(client, fresh_id, [(b"k", value)])
        request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id)
        gets, puts = [], []
        for n in range(100):
            gets.append(client.kv.Get.future(request, timeout=PATIENCE_S))
            item = kv.Item(key=b"k", value=b"small")
            puts.append(client.kv.Put.future(kv.PutRequest(namespace=NAMESPACE, id=f"{fresh_id}-{n}", items=[item])))
        for call in gets:
            assert pairs(call.result()) == [(b"k", value)]
        for call in puts:
            assert call.result().HasField("result")


@pytest.mark.parametrize(
    "path, code",
    [
        ("/prism.keyvalue.v1.KeyValue/Nothing", grpc.StatusCode.UNIMPLEMENTED),
        ("/no.such.Service/Method", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_an_error_comes_before_the_client_has_ended_its_call(client, path, code):
    """A bidirectional call keeps its side open until it is answered."""
    may_end = threading.Event()

    def requests():
        yield b"one"
        may_end.wait(PATIENCE_S)

    call = client.channel.stream_stream(path)(requests(), timeout=PATIENCE_S)
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    may_end.set()
    assert caught.value.code() == code
    assert time.monotonic() - began < PATIENCE_S / 3


def test_a_second_message_of_a_unary_call_is_refused_at_once(client, fresh_id):
    message = kv.GetRequest(namespace=NAMESPACE, id=fresh_id).SerializeToString()
    may_end = threading.Event()

    def requests():
        yield message
        yield message
        may_end.wait(PATIENCE_S)

    call = client.channel.stream_stream("/prism.keyvalue.v1.KeyValue/Get")(requests(), timeout=PATIENCE_S)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    may_end.set()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
