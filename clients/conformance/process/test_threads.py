"""A thread of the gateway that dies: health and readiness turn while the others still drain, and the process ends with a reason."""

import contextlib
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import BINARY, PATIENCE_S, Client
from grpc.health.v1 import health_pb2, health_pb2_grpc
from server import Server

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
DRAIN_S = 4
# The kinds of threads whose end leaves the shard alive; those of shards cut the connections that would see it. Without those
# that need a server as store or catalog.
KINDS = [
    "prism-writer", "prism-reader", "prism-checkpoint", "prism-keeper", "prism-log", "prism-control", "prism-provision",
    "prism-gateway", "prism-diagnostics", "main",
]
# Their beginnings are complete: the drain waits for the rest of them.
CALL = b"POST /prism.keyvalue.v1.KeyValue/Get HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{"
PROBE = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def with_fault_points():
    if b"PRISM_TEST_END" not in BINARY.read_bytes():
        pytest.skip("only a debug build can be asked to end its threads")


def begin(address, start):
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    connection.sendall(start)
    return connection


def give_work(server, stop):
    """Something to do for each kind of thread, until one is found dead. What comes of it does not matter."""
    with contextlib.suppress(grpc.RpcError), Client(server.address) as client:
        number = 0
        while not stop.is_set():
            # Large, so that the log needs new segments.
            client.put("kept", f"id-{number}", bytes(200_000))
            client.value("kept", f"id-{number}")
            client.names()
            client.create(f"more-{number}")
            server.process.send_signal(signal.SIGUSR1)
            server.process.send_signal(signal.SIGHUP)
            number += 1


@pytest.fixture
def servers(tmp_path, monkeypatch):
    """A gateway for each kind, whose threads of that kind panic at their next work after a file `fault` is in its folder."""
    settings = (f"limits.drain_timeout={DRAIN_S}s", "wal.segment_bytes=4MiB", "wal.writer=thread", "wal.allow_unsafe_filesystem=true")
    options = [word for setting in settings for word in ("--set", setting)]
    made = {}
    try:
        for kind in KINDS:
            folder = tmp_path / kind
            folder.mkdir()
            monkeypatch.setenv("PRISM_TEST_END", f"{kind}:panic:{folder / 'fault'}")
            made[kind] = Server(BINARY, folder, "--shards", "1", *options)
            made[kind].start()
        yield made
    finally:
        for server in made.values():
            server.kill()


def test_health_and_readiness_turn_when_a_thread_dies(servers):
    # Side by side: they wait most of the time.
    with ThreadPoolExecutor(len(KINDS)) as pool:
        ends = {kind: pool.submit(end_of, kind, server) for kind, server in servers.items()}
    problems = {kind: end.exception() for kind, end in ends.items() if end.exception()}
    assert not problems, problems


def end_of(kind, server):
    stop = threading.Event()
    worker = threading.Thread(target=give_work, args=(server, stop))
    with Client(server.address) as client, begin(server.address, CALL) as call, begin(server.address, PROBE) as probe:
        client.create("kept", "strong")
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert next(watch).status == SERVING
        (server.folder / "fault").touch()
        worker.start()
        try:
            assert next(watch).status == NOT_SERVING
        finally:
            stop.set()
        assert server.process.poll() is None, "it does not drain"
        probe.sendall(b" ")
        answer = probe.recv(1 << 16).decode()
        assert answer.startswith("HTTP/1.1 503 ") and f"the thread {kind}" in answer, answer
        # A call that was begun before is answered.
        call.sendall(b"}")
        assert call.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    worker.join(timeout=PATIENCE_S)
    assert server.process.wait(timeout=PATIENCE_S) == 4
    sentences = [line for line in server.output().splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1 and f"the thread {kind}" in sentences[0], sentences
