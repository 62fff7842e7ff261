"""A gateway of messages that is killed, drained, kept from its store, or has readers that do not read."""

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time

import grpc
import pytest
from conftest import OPTIONS, PATIENCE_S

PUBLISHERS = 3
KEYS = 2
ROUNDS = 3


def create(server, name, durability, more=""):
    from prism.admin.v1 import namespaces_pb2 as admin
    from prism.admin.v1 import namespaces_pb2_grpc

    yaml = f"namespace: {name}\nteam: t\nclient_api: pubsub\nneeds:\n  durability: {durability}\n  ordered: true\n{more}"
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        namespaces_pb2_grpc.NamespacesStub(channel).Create(admin.CreateRequest(yaml=yaml), timeout=PATIENCE_S)


def started(new_server, *options):
    server = new_server("--embedded", "sqlite", "--shards", "2", "--set", "wal.allow_unsafe_filesystem=true", *options)
    server.start()
    return server


class Load:
    """Publishers over kills of their gateway. Each repeats a call with its token until it has a definite answer."""

    def __init__(self, server, namespace, repeats=True):
        from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc

        self.ps, self.grpc, self.server, self.namespace, self.repeats = pubsub_pb2, pubsub_pb2_grpc, server, namespace, repeats
        self.stopped, self.acknowledged = threading.Event(), [[] for _ in range(PUBLISHERS)]
        self.threads = [threading.Thread(target=self.publish, args=[number]) for number in range(PUBLISHERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(timeout=2 * PATIENCE_S)

    def publish(self, publisher):
        channel, number = None, 0
        while not self.stopped.is_set():
            request = self.ps.PublishRequest(namespace=self.namespace)
            request.message.topic, request.message.ordering_key = f"of.{publisher}", str(number % KEYS)
            request.message.payload = str(number).encode()
            request.idempotency_token.token = f"{publisher}-{number}".encode()
            request.idempotency_token.generation_time.GetCurrentTime()
            while not self.stopped.is_set():
                channel = channel or grpc.insecure_channel(self.server.address, OPTIONS)
                try:
                    self.grpc.PubSubStub(channel).Publish(request, timeout=PATIENCE_S)
                    self.acknowledged[publisher].append(number)
                    break
                except grpc.RpcError as error:
                    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED), error
                    channel.close()
                    channel = None
                    time.sleep(0.02)
                    if not self.repeats:
                        break
            number += 1
        if channel:
            channel.close()

    def go_on(self):
        """Waits until each publisher has published more."""
        before, deadline = [len(one) for one in self.acknowledged], time.monotonic() + 2 * PATIENCE_S
        while any(len(one) < count + 20 for one, count in zip(self.acknowledged, before, strict=True)):
            assert time.monotonic() < deadline, f"the publishers do not go on: {before}"
            time.sleep(0.01)

    def stored(self):
        """All numbers that a subscriber gets, of each publisher and key, in their order."""
        last = b"the last one"
        with grpc.insecure_channel(self.server.address, OPTIONS) as channel:
            stub = self.grpc.PubSubStub(channel)
            # Partitions have no order among themselves: one last message in each line tells that all has come.
            lines = [(f"of.{publisher}", str(key)) for publisher in range(PUBLISHERS) for key in range(KEYS)]
            for topic, key in lines:
                message = self.ps.Message(topic=topic, ordering_key=key, payload=last)
                stub.Publish(self.ps.PublishRequest(namespace=self.namespace, message=message), timeout=PATIENCE_S)
            found, open_lines = {line: [] for line in lines}, set(lines)
            start = self.ps.StartAt(start=self.ps.START_EARLIEST)
            for answer in stub.Subscribe(self.ps.SubscribeRequest(namespace=self.namespace, start=start), timeout=PATIENCE_S):
                assert not answer.HasField("gap"), "nothing is missing"
                for one in answer.messages:
                    line = (one.message.topic, one.message.ordering_key)
                    if one.message.payload == last:
                        open_lines.discard(line)
                    else:
                        found[line].append(int(one.message.payload))
                if not open_lines:
                    return found
        raise AssertionError(f"the stream ended without {open_lines}")

    def check(self, is_whole):
        """No message is there twice or out of order; where `is_whole`, none that was acknowledged is missing."""
        for (topic, key), numbers in self.stored().items():
            publisher = int(topic.removeprefix("of."))
            assert numbers == sorted(set(numbers)), f"{topic} {key}: twice, or out of order"
            acknowledged = {number for number in self.acknowledged[publisher] if number % KEYS == int(key)}
            if is_whole:
                assert acknowledged <= set(numbers), f"{topic} {key}: lost {sorted(acknowledged - set(numbers))}"
            # A call that was given up may have taken place, and no other.
            assert len(set(numbers) - acknowledged) <= (1 if self.repeats else ROUNDS + 1), f"{topic} {key}"


# P25, and P7: a repeat after a restart is the same message.
@pytest.mark.parametrize("durability", ["strong", "eventual"])
def test_p25_a_kill_loses_no_message_doubles_none_and_keeps_their_order(new_server, durability):
    server = started(new_server)
    create(server, "events", durability)
    with Load(server, "events") as load:
        for _ in range(ROUNDS):
            load.go_on()
            server.kill()
            server.start()
        load.go_on()
    load.check(is_whole=True)


# P28: what was acknowledged when it was queued may be lost, and nothing else happens to it.
def test_p28_a_kill_at_best_effort_loses_and_never_reorders(new_server):
    server = started(new_server)
    create(server, "events", "best-effort")
    with Load(server, "events", repeats=False) as load:
        for _ in range(ROUNDS):
            load.go_on()
            server.kill()
            server.start()
        load.go_on()
    load.check(is_whole=False)


@contextlib.contextmanager
def store_away(server):
    """The store takes no writes: another process holds its lock."""
    store = sqlite3.connect(server.folder / "data" / "keyvalue.db", isolation_level=None, timeout=PATIENCE_S)
    try:
        store.execute("BEGIN IMMEDIATE")
        yield
        store.execute("ROLLBACK")
    finally:
        store.close()


# P26. PRISM_OUTAGE_S sets how long; a minute by command.
def test_p26_without_the_store_strong_goes_on_and_nothing_is_lost(new_server):
    outage_s = float(os.environ.get("PRISM_OUTAGE_S", "3"))
    server = started(new_server)
    create(server, "events", "strong")
    with Load(server, "events") as load:
        load.go_on()
        with store_away(server):
            until = time.monotonic() + outage_s
            while time.monotonic() < until:
                load.go_on()
        load.go_on()
        # Killed while the store is away: its records are in the log alone.
        with store_away(server):
            load.go_on()
            server.kill()
        server.start()
        load.go_on()
    load.check(is_whole=True)


def resident_bytes(server):
    with open(f"/proc/{server.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# P19: 16 readers of 64 MiB that read nothing, by HTTP/1.1 and by gRPC.
def test_p19_readers_that_do_not_read_cost_little_and_hold_up_nobody(new_server):
    from prism.pubsub.v1 import pubsub_pb2 as ps
    from prism.pubsub.v1 import pubsub_pb2_grpc

    server = started(new_server)
    create(server, "events", "best-effort", "  max_message_size: 2MB\n")
    with grpc.insecure_channel(server.address, OPTIONS) as channel, contextlib.ExitStack() as stack:
        stub = pubsub_pb2_grpc.PubSubStub(channel)
        earliest = ps.SubscribeRequest(namespace="events", start=ps.StartAt(start=ps.START_EARLIEST))

        def publish(number):
            deadline = time.monotonic() + PATIENCE_S
            message = ps.Message(topic="large", ordering_key="k", payload=number.to_bytes(4) + bytes(1_000_000))
            while True:
                try:
                    return stub.Publish(ps.PublishRequest(namespace="events", message=message), timeout=PATIENCE_S)
                except grpc.RpcError as error:
                    # It waits for room in the queue of the store.
                    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and time.monotonic() < deadline, error
                    time.sleep(0.01)

        def numbers(stream, count):
            found = []
            for answer in stream:
                found += [int.from_bytes(one.message.payload[:4]) for one in answer.messages]
                if len(found) >= count:
                    return found
            raise AssertionError(f"the stream ended after {len(found)}")

        for number in range(64):
            publish(number)
        assert numbers(stub.Subscribe(earliest, timeout=PATIENCE_S), 64) == list(range(64))
        before = resident_bytes(server)
        body = json.dumps({"namespace": "events", "start": {"start": "START_EARLIEST"}}).encode()
        head = f"POST /prism.pubsub.v1.PubSub/Subscribe HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
        for _ in range(8):
            reader = stack.enter_context(socket.create_connection(server.address.split(":"), timeout=PATIENCE_S))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.sendall(head.encode() + body)
            own = stack.enter_context(grpc.insecure_channel(server.address, OPTIONS))
            stream = pubsub_pb2_grpc.PubSubStub(own).Subscribe(earliest)
            stack.callback(stream.cancel)
            # It stands; nothing more is read.
            next(stream)
        # A neighbour gets everything meanwhile, and what is new.
        stream = stub.Subscribe(earliest, timeout=2 * PATIENCE_S)
        assert numbers(stream, 64) == list(range(64))
        for number in range(64, 96):
            publish(number)
        assert numbers(stream, 32) == list(range(64, 96))
        stream.cancel()
        grown = resident_bytes(server) - before
        # An answer has up to 1 MiB where it is asked for, and as much is read ahead; 16 × 96 MiB would be without bounds.
        assert grown < 200 << 20, f"{grown >> 20} MiB for 16 readers that do not read"


class Curl:
    """Server-sent events as curl reads them over HTTP/1.1."""

    def __init__(self, server, namespace):
        body = json.dumps({"namespace": namespace})
        url = f"http://{server.address}/prism.pubsub.v1.PubSub/Subscribe"
        fields = ["--header", "content-type: application/json", "--header", "accept: text/event-stream"]
        self.process = subprocess.Popen(
            ["curl", "--silent", "--show-error", "--no-buffer", "--http1.1", "--max-time", str(PATIENCE_S), "--data", body, *fields, url],
            stdout=subprocess.PIPE, text=True,
        )

    def event(self):
        fields = {}
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line and not line.startswith((":", "retry:")):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                return fields
        return None


# P30: over HTTP/1.1, whose connection ends with the stream.
def test_p30_a_drain_ends_a_subscription_over_http_1_with_an_error_event(new_server):
    server = started(new_server)
    create(server, "events", "strong")
    curls = [Curl(server, "events") for _ in range(3)]
    for curl in curls:
        assert json.loads(curl.event()["data"]).get("messages", []) == []
    server.stop()
    for curl in curls:
        last = curl.event()
        assert last["event"] == "error", last
        error = json.loads(last["data"])
        assert error["code"] == "unavailable" and "NOT_SERVING" in last["data"], last
        assert curl.event() is None, "it is the last event"
        assert curl.process.wait(timeout=PATIENCE_S) == 0, "curl sees a whole answer"
