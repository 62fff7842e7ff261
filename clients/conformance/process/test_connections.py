"""Clients that vanish, never finish, or take all they can get: what they hold is given back, and honest ones notice nothing."""

import contextlib
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from conftest import OPTIONS, PATIENCE_S, Client

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BUF = Path(__file__).parent.parent / "node" / "node_modules" / ".bin" / "buf"
SHORT = ["--embedded", "memory", "--shards", "1"]
QUICK = ["--set", "limits.receive_timeout=2s", "--set", "limits.handshake_timeout=2s", "--set", "limits.body_rate_min=1KiB"]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


SETTINGS, SETTINGS_ACK = frame(4, 0, 0), frame(4, 1, 0)
# POST http /; content-type: application/grpc; :path is a literal.
PATH = b"/prism.keyvalue.v1.KeyValue/Put"
POST = b"\x83\x86\x41\x09localhost" + b"\x44" + bytes([len(PATH)]) + PATH + b"\x5f\x10application/grpc"


def connect(server, source="127.0.0.1"):
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S, source_address=(source, 0))


def h2(server, source="127.0.0.1"):
    """An HTTP/2 connection that will never answer a PING."""
    client = connect(server, source)
    client.sendall(PREFACE + SETTINGS + SETTINGS_ACK)
    return client


def until_closed(client):
    """All that came until the end, and how many seconds that took."""
    began, received = time.monotonic(), b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received, time.monotonic() - began


def frames(received):
    while len(received) >= 9:
        length = int.from_bytes(received[:3], "big")
        yield received[3], int.from_bytes(received[5:9], "big"), received[9 : 9 + length]
        received = received[9 + length :]


def is_ready(server):
    with contextlib.closing(connect(server)) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return b" 200 " in client.makefile("rb").readline()


def test_clients_that_vanished_give_their_places_back_and_cannot_take_the_last(new_server):
    limits = ["limits.connections_max=40", "limits.keepalive_interval=2s", "limits.keepalive_timeout=1s"]
    with new_server(*SHORT, *[part for limit in limits for part in ("--set", limit)]) as server:
        # The machine of these is gone: nothing more comes from them, not even the end.
        gone = [h2(server, "127.0.0.2") for _ in range(40)]
        refused = [client for client in gone[36:] if until_closed(client)[1] < 1]
        assert len(refused) == 4, "one client gets nine tenths of the places"
        assert is_ready(server), "the last places are for others"
        for client in gone[:36]:
            received, _ = until_closed(client)
            assert any(kind == 6 for kind, _, _ in frames(received)), "it was asked for a sign of life"
        again = [h2(server, "127.0.0.2") for _ in range(36)]
        assert is_ready(server)
        for client in again:
            client.close()


def test_the_kernel_watches_over_idle_connections(new_server):
    with new_server(*SHORT, "--set", "limits.keepalive_interval=30s") as server, contextlib.closing(connect(server)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b" 200 " in client.recv(4096)
        port = int(server.address.split(":")[1])
        ours = f":{port:04X} 0100007F:{client.getsockname()[1]:04X} 01 "
        (line,) = [line for line in Path("/proc/net/tcp").read_text().splitlines() if ours in line]
        # "tr" 02: the keepalive timer runs; "tm->when" in hundredths of a second.
        timer, when = line.split()[5].split(":")
        assert timer == "02" and 0 < int(when, 16) <= 3_000


NEVER_FINISHED = {
    "half a preface": PREFACE[:10],
    "no settings": PREFACE,
    "a header block without an end": PREFACE + SETTINGS + frame(1, 0, 1, POST),
    "half a frame": PREFACE + SETTINGS + frame(0x2A, 0, 0, b"x" * 100)[:50],
    "half a head": b"GET /healthz HTTP/1.1\r\nhost:",
    "half a body": b"POST /prism.keyvalue.v1.KeyValue/Put HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
}


def test_who_never_finishes_what_he_began_is_let_go(new_server):
    with new_server(*SHORT, *QUICK) as server, contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(contextlib.closing(connect(server))) for name in NEVER_FINISHED}
        for name, client in clients.items():
            client.sendall(NEVER_FINISHED[name])
        for name, client in clients.items():
            received, seconds = until_closed(client)
            assert seconds < 10, name
            if NEVER_FINISHED[name].startswith((b"GET", b"POST")):
                assert received.startswith(b"HTTP/1.1 408 "), (name, received)
            elif name != "half a preface":
                assert any(kind == 7 for kind, _, _ in frames(received)), (name, "GOAWAY")


def test_a_call_without_an_end_is_refused_and_its_connection_lives_on(new_server):
    message = frame(0, 0, 1, b"\0\0\0\0\x20" + b"half")
    with new_server(*SHORT, *QUICK) as server, contextlib.closing(h2(server)) as client:
        client.sendall(frame(1, 4, 1, POST) + message)
        received, began = b"", time.monotonic()
        while not any(kind == 1 and stream == 1 for kind, stream, _ in frames(received)):
            received += client.recv(65536)
        assert time.monotonic() - began < 10
        client.sendall(frame(6, 0, 0, b"are you?"))
        while not any(kind == 6 and payload == b"are you?" for kind, _, payload in frames(received)):
            received += client.recv(65536)


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_a_body_that_drips_is_refused(new_server, protocol):
    with new_server(*SHORT, *QUICK) as server:
        client = connect(server) if protocol == "HTTP/1.1" else h2(server)
        with contextlib.closing(client):
            if protocol == "HTTP/1.1":
                drop = b"{"
                client.sendall(NEVER_FINISHED["half a body"])
            else:
                drop = frame(0, 0, 1, b"x")
                client.sendall(frame(1, 4, 1, POST))
            stop = threading.Event()

            def drip():
                with contextlib.suppress(OSError):
                    while not stop.wait(0.1):
                        client.sendall(drop)

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                received, deadline = b"", time.monotonic() + 10
                answered = b"HTTP/1.1 408 " if protocol == "HTTP/1.1" else b"grpc-status"
                while answered not in received and time.monotonic() < deadline:
                    piece = client.recv(65536)
                    if not piece:
                        break
                    received += piece
                    if protocol == "HTTP/2" and any((kind, stream) == (1, 1) for kind, stream, _ in frames(received)):
                        break
                assert time.monotonic() < deadline
                if protocol == "HTTP/1.1":
                    assert answered in received
                else:
                    assert any((kind, stream) == (1, 1) for kind, stream, _ in frames(received))
            finally:
                stop.set()
                dripping.join()


def test_a_real_client_answers_pings_and_its_own_keepalive_is_welcome(new_server):
    limits = ["--set", "limits.keepalive_interval=1s", "--set", "limits.keepalive_timeout=1s"]
    options = [*OPTIONS, ("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
    with new_server(*SHORT, *limits) as server, grpc.insecure_channel(server.address, options) as lively, Client(server.address) as quiet:
        states = []
        quiet.create("alive")
        quiet.put("alive", "id", b"value")
        for channel in (lively, quiet.channel):
            grpc.channel_ready_future(channel).result(PATIENCE_S)
            channel.subscribe(states.append)
        # Not a wait for an event: this is the silence in which nothing may happen.
        time.sleep(5)
        assert quiet.value("alive", "id") == b"value"
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states
        assert grpc.ChannelConnectivity.IDLE not in states[1:], states


def test_an_old_connection_is_left_without_losing_a_call(new_server):
    with new_server(*SHORT, "--set", "limits.connection_age_max=1s") as server, Client(server.address) as client:
        client.create("old")
        deadline, calls, scrapes, before = time.monotonic() + 2 * PATIENCE_S, 0, 1, accepted(server)
        # The client connects anew each second or so, which a busy machine draws out. Each look is a connection, too.
        while accepted(server) - before - scrapes < 3:
            scrapes += 1
            assert time.monotonic() < deadline, "the client connects anew, again and again"
            for _ in range(200):
                client.put("old", f"id-{calls}", b"value")
                calls += 1
        assert client.value("old", f"id-{calls - 1}") == b"value"


def accepted(server):
    """The connections that the gateway has accepted, this one included."""
    with contextlib.closing(connect(server)) as metrics:
        metrics.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        text = metrics.makefile("rb").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("prism_connections_accepted_total{")]
    return sum(int(line.split()[-1]) for line in lines)


@pytest.mark.parametrize("protocol", [[], ["--http2-prior-knowledge"], ["--http2-prior-knowledge", "--protocol", "grpc"]])
def test_buf_lists_the_services_or_says_why_not(new_server, protocol):
    """A reflection call keeps its side open: over HTTP/1.1 it would wait for ever for an answer that comes at its end."""
    with new_server(*SHORT) as server:
        command = [BUF, "curl", "--list-services", *protocol, f"http://{server.address}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if "grpc" in protocol or done.returncode == 0:
            assert done.returncode == 0, done.stderr
            assert "prism.keyvalue.v1.KeyValue" in done.stdout
        else:
            assert done.stderr.strip()
