"""A gateway that is killed amid sends and acks: what was sent stays sent, what was acked stays acked."""

import threading
import time

import grpc
import pytest
from conftest import OPTIONS, PATIENCE_S

WORKERS = 3
ROUNDS = 3


class Shop:
    """Senders and workers of one queue over kills of its gateway, and what they were told."""

    def __init__(self, address, namespace):
        from prism.queue.v1 import queue_pb2, queue_pb2_grpc

        self.qu, self.namespace, self.address = queue_pb2, namespace, address
        self.make_stub = queue_pb2_grpc.QueueStub
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.sent, self.tried, self.asked, self.acked, self.again = set(), set(), set(), set(), []

    def run(self, work):
        """Repeats a piece of work on a channel; a gateway that is away is waited for."""
        number = 0
        while not self.stopped.is_set():
            with grpc.insecure_channel(self.address, OPTIONS) as channel:
                stub = self.make_stub(channel)
                try:
                    while not self.stopped.is_set():
                        number += 1
                        work(stub, number)
                except grpc.RpcError:
                    time.sleep(0.05)

    def send(self, name, stub, number):
        payload = f"{name}-{number}".encode()
        self.tried.add(payload)
        request = self.qu.SendRequest(namespace=self.namespace, message=self.qu.Message(payload=payload))
        stub.Send(request, timeout=PATIENCE_S)
        with self.lock:
            self.sent.add(payload)

    def work(self, stub, _):
        request = self.qu.ReceiveRequest(namespace=self.namespace, messages_max=10)
        request.wait.FromMilliseconds(500)
        # Longer than the test: no message comes again because of its worker.
        request.lease.FromSeconds(3600)
        messages = stub.Receive(request, timeout=PATIENCE_S).messages
        with self.lock:
            self.again += [one.message.payload for one in messages if one.message.payload in self.acked]
        # Every other message is left alone, so that both kinds are there at each kill.
        wanted = messages[::2]
        if not wanted:
            return
        with self.lock:
            self.asked |= {one.message.payload for one in wanted}
        ack = self.qu.AckRequest(namespace=self.namespace, receipts=[one.receipt for one in wanted])
        results = stub.Ack(ack, timeout=PATIENCE_S).results
        with self.lock:
            for one, result in zip(wanted, results, strict=True):
                if result.status.code == 0:
                    self.acked.add(one.message.payload)


def left(server, namespace):
    """The payloads of all messages that are not done."""
    from prism.queue.v1 import queue_pb2 as qu
    from prism.queue.v1 import queue_pb2_grpc

    found, request = [], qu.PeekRequest(namespace=namespace, page_size=1000)
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        stub = queue_pb2_grpc.QueueStub(channel)
        while True:
            page = stub.Peek(request, timeout=PATIENCE_S)
            found += [one.message.payload for one in page.messages]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


@pytest.mark.parametrize("durability", ["strong", "eventual"])
def test_a_kill_loses_no_message_and_no_ack(new_server, durability):
    from prism.admin.v1 import namespaces_pb2 as admin
    from prism.admin.v1 import namespaces_pb2_grpc

    options = ["--embedded", "sqlite", "--shards", "2", "--set", "wal.allow_unsafe_filesystem=true"]
    server = new_server(*options)
    server.start()
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        yaml = f"namespace: jobs\nteam: t\nclient_api: queue\nneeds:\n  durability: {durability}\n"
        namespaces_pb2_grpc.NamespacesStub(channel).Create(admin.CreateRequest(yaml=yaml), timeout=PATIENCE_S)
    shop = Shop(server.address, "jobs")
    jobs = [lambda stub, number, name=name: shop.send(name, stub, number) for name in "ab"] + [shop.work] * WORKERS
    threads = [threading.Thread(target=shop.run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            before, deadline = len(shop.acked), time.monotonic() + PATIENCE_S
            while len(shop.acked) < before + 50 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(shop.acked) >= before + 50, "work goes on after a kill"
            server.kill()
            server.start()
    finally:
        shop.stopped.set()
        for thread in threads:
            thread.join(timeout=2 * PATIENCE_S)
    remaining = left(server, "jobs")
    assert len(set(remaining)) == len(remaining), "no message is there twice"
    assert not shop.acked & set(remaining), "what was acked is done"
    assert not shop.again, "what was acked never came again"
    # Of an Ack whose answer was lost nobody knows whether it took effect.
    assert not shop.sent - shop.asked - set(remaining), "what was sent is there"
    assert set(remaining) <= shop.tried
