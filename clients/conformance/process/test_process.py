"""The process as an operator sees it: starting, refusing to start, restarting, draining."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from conftest import BINARY, PATIENCE_S, Client
from prism.keyvalue.v1 import keyvalue_pb2 as kv

SECONDS_MAX = 20


def refused(*options):
    """Runs a `serve` that must give up at once; what it printed."""
    command = [str(BINARY), "serve", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, stdin=subprocess.DEVNULL)
    assert done.returncode not in (0, 101) and done.returncode > 0, f"status {done.returncode}: {done.stderr}"
    assert "panicked" not in done.stderr
    assert done.stderr.strip(), "it says nothing"
    return done.stderr + done.stdout


def test_a_port_in_use(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = "127.0.0.1:%d" % holder.getsockname()[1]
        assert address in refused("--listen", address, "--data-dir", tmp_path / "data")


def test_a_port_of_another_gateway(tmp_path):
    """Shards share a port; two gateways must not."""
    address = os.environ["PRISM_TARGET"]
    assert address in refused("--listen", address, "--data-dir", tmp_path / "data")


def test_a_data_directory_that_is_a_file(tmp_path):
    file = tmp_path / "data"
    file.write_text("not a folder")
    assert str(file) in refused("--data-dir", file, "--listen", "127.0.0.1:0")


def test_a_data_directory_that_cannot_be_made():
    assert "/proc/nothing" in refused("--data-dir", "/proc/nothing/data", "--listen", "127.0.0.1:0")


def test_a_data_directory_in_use(new_server):
    with new_server() as server:
        data = server.folder / "data"
        assert str(data) in refused("--data-dir", data, "--listen", "127.0.0.1:0")


def test_not_beyond_loopback_without_a_word(tmp_path):
    assert "loopback" in refused("--listen", "0.0.0.0:0", "--data-dir", tmp_path / "data")


@pytest.mark.parametrize(
    "options",
    [("--shards", "0"), ("--shards", "many"), ("--driver", "kqueue"), ("--embedded", "oracle"), ("--listen", "nowhere")],
    ids=" ".join,
)
def test_bad_options(options, tmp_path):
    printed = refused("--data-dir", tmp_path / "data", *options)
    assert options[1] in printed


def test_the_diagnostics_name_a_failed_request(new_server):
    with new_server("--embedded", "memory", "--log-level", "debug") as server, Client(server.address) as client:
        request = kv.GetRequest(namespace="no-such-namespace", id="x")
        with pytest.raises(grpc.RpcError):
            client.kv.Get(request, timeout=PATIENCE_S, metadata=[("x-request-id", "order-17")])
        await_line(server, 'request="order-17"', "/prism.keyvalue.v1.KeyValue/Get", "NAMESPACE_UNKNOWN")


def await_line(server, *parts):
    """Waits until the server has printed a line with all these parts."""
    until = time.monotonic() + PATIENCE_S
    while not any(all(part in line for part in parts) for line in server.tail().splitlines()):
        assert time.monotonic() < until, f"no line has {parts}:\n{server.tail()}"
        time.sleep(0.02)


@pytest.mark.parametrize("driver", ["epoll", "auto"])
def test_each_driver_serves_and_is_named(new_server, driver):
    with new_server("--driver", driver, "--embedded", "memory", "--shards", "2", "--set", "http.compress_above=off") as server:
        with Client(server.address) as client:
            client.create("drivers")
            client.put("drivers", "x", b"v" * 100_000)
            assert client.value("drivers", "x") == b"v" * 100_000
        assert "content-encoding" not in reply_for_who_takes_gzip(server, '{"namespace": "drivers", "id": "x"}')
        expected = {"epoll": ["epoll"], "auto": ["epoll", "io_uring"]}[driver]
        assert any(name in server.output() for name in expected), "it says which driver is in use"


def reply_for_who_takes_gzip(server, message):
    """The fields of a large reply, in small letters."""
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        fields = {"content-type": "application/json", "accept-encoding": "gzip, zstd"}
        connection.request("POST", "/prism.keyvalue.v1.KeyValue/Get", message, fields)
        reply = connection.getresponse()
        assert reply.status == 200 and len(reply.read()) > 100_000
        return {name.lower() for name, _ in reply.getheaders()}


FORBIDDING = [sys.executable, str(Path(__file__).parent / "without_io_uring.py")]


def test_io_uring_demanded_where_it_is_forbidden(tmp_path):
    command = [*FORBIDDING, str(BINARY), "serve", "--driver", "io_uring", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, stdin=subprocess.DEVNULL)
    assert done.returncode > 0 and "--driver epoll" in done.stderr, done.stderr


def test_epoll_takes_over_where_io_uring_is_forbidden(new_server):
    server = new_server("--embedded", "memory")
    server.command[:0] = FORBIDDING
    with server:
        with Client(server.address) as client:
            client.create("forbidden")
            client.put("forbidden", "x", b"v")
            assert client.value("forbidden", "x") == b"v"
        assert "epoll" in server.output(), "it says which driver is in use"


def test_namespaces_and_data_survive_a_restart(new_server):
    server = new_server("--embedded", "sqlite")
    with server, Client(server.address) as client:
        client.create("lasting")
        client.put("lasting", "x", b"before")
    # The number of shards may change; the data do not move.
    server.command += ["--shards", "3"]
    with server, Client(server.address) as client:
        assert client.names() == ["lasting"]
        assert client.value("lasting", "x") == b"before"


def test_a_crash_leaves_a_store_that_opens(new_server):
    server = new_server("--embedded", "sqlite")
    server.start()
    with Client(server.address) as client:
        client.create("crashed")
        for n in range(100):
            client.put("crashed", f"id-{n}", str(n).encode())
    server.kill()
    with server, Client(server.address) as client:
        assert client.names() == ["crashed"]
        for n in range(100):
            assert client.value("crashed", f"id-{n}") in (None, str(n).encode())


def test_memory_forgets_everything_and_says_so(new_server):
    server = new_server("--embedded", "memory")
    with server, Client(server.address) as client:
        client.create("fleeting")
        client.put("fleeting", "x", b"v")
    assert "gone after a restart" in server.output()
    assert not (server.folder / "data").exists()
    with server, Client(server.address) as client:
        assert client.names() == []


def test_a_drain_finishes_what_was_taken(new_server):
    """A scan that is being read when SIGTERM comes is read to its end; nothing new is taken."""
    server = new_server("--embedded", "memory")
    with server, Client(server.address) as client:
        client.create("draining")
        for n in range(16):
            client.put("draining", f"id-{n}", bytes([n]) * (1 << 20))
        request = kv.ScanRequest(namespace="draining", selection=kv.Selection(item_limit=1))
        scan = client.kv.Scan(request, timeout=PATIENCE_S)
        entries = len(next(scan).entries)
        ended = threading.Thread(target=server.stop)
        ended.start()
        until_refused(server.address)
        entries += sum(len(page.entries) for page in scan)
        assert entries == 16, "the call that was taken is finished"
        ended.join(timeout=SECONDS_MAX)
        assert not ended.is_alive()
        with pytest.raises(grpc.RpcError):
            client.value("draining", "id-0")
        server.start()


def until_refused(address):
    """Waits until the server takes no new connections, or says that it is not ready for new calls."""
    host, port = address.split(":")
    for _ in range(1000):
        try:
            with socket.create_connection((host, int(port)), timeout=5) as probe:
                probe.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                if b" 200 " not in probe.recv(64):
                    return
        except OSError:
            return
    raise AssertionError("SIGTERM changed nothing")


def test_idle_connections_do_not_hold_up_the_end(new_server):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(new_server("--embedded", "memory"))
        host, port = server.address.split(":")
        for _ in range(20):
            stack.enter_context(socket.create_connection((host, int(port))))
        channel = stack.enter_context(Client(server.address))
        assert channel.names() == []
        # Leaving the inner block stops the server while all these connections are open.
        server.stop()
        server.start()
