"""Queue by grpcio and by JSON: send, receive, ack, nack, extend, wait, look on, and what is refused."""

import concurrent.futures
import time

import grpc
import pytest
from conftest import DURABILITY, OPTIONS, PATIENCE_S, PROMISED, TARGET
from google.protobuf.duration_pb2 import Duration
from prism.admin.v1 import namespaces_pb2 as admin
from prism.admin.v1 import namespaces_pb2_grpc
from prism.common.v1 import common_pb2 as common
from prism.queue.v1 import queue_pb2 as qu
from prism.queue.v1 import queue_pb2_grpc
from test_http import b64, call_json

QUEUE = "/prism.queue.v1.Queue/"


class Jobs:
    """A queue of its own, and the stub for it."""

    def __init__(self, channel, namespace):
        self.namespace = namespace
        self.stub = queue_pb2_grpc.QueueStub(channel)
        self.admin = namespaces_pb2_grpc.NamespacesStub(channel)

    def send(self, payload, token=None, **fields):
        message = qu.Message(payload=payload, attributes={"a": "b"}, **fields)
        request = qu.SendRequest(namespace=self.namespace, message=message)
        if token:
            request.idempotency_token.token = token
            request.idempotency_token.generation_time.GetCurrentTime()
        return self.stub.Send(request, timeout=PATIENCE_S)

    def receive(self, wait=20, lease=600, **fields):
        request = qu.ReceiveRequest(
            namespace=self.namespace, wait=Duration(seconds=wait), lease=Duration(seconds=lease), **fields
        )
        return self.stub.Receive(request, timeout=wait + PATIENCE_S).messages

    def ack(self, *receipts):
        request = qu.AckRequest(namespace=self.namespace, receipts=receipts)
        return self.stub.Ack(request, timeout=PATIENCE_S).results

    def nack(self, *receipts, **fields):
        request = qu.NackRequest(namespace=self.namespace, receipts=receipts, **fields)
        return self.stub.Nack(request, timeout=PATIENCE_S).results

    def stats(self):
        reply = self.stub.Stats(qu.StatsRequest(namespace=self.namespace), timeout=PATIENCE_S)
        return {one.state: one.messages for one in reply.states}


def reason(status):
    """The reason of a status within a message."""
    from google.rpc import error_details_pb2

    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


@pytest.fixture
def jobs(fresh_id):
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        jobs = Jobs(channel, f"jobs-{fresh_id}")
        needs = f"needs: {{durability: {DURABILITY}, ordered: true}}"
        yaml = f"namespace: {jobs.namespace}\nteam: conformance\nclient_api: queue\n{needs}\n"
        jobs.admin.Create(admin.CreateRequest(yaml=yaml), timeout=PATIENCE_S)
        yield jobs
        jobs.admin.Delete(admin.DeleteRequest(name=jobs.namespace), timeout=PATIENCE_S)


def test_work_is_sent_received_and_acked(jobs):
    sent = jobs.send(b"\x00\xff work", ordering_key="k\u00fc")
    assert common.Durability.Name(sent.result.durability) == PROMISED
    [message] = jobs.receive()
    assert message.message_id == sent.message_id and message.attempt == 1
    assert message.message.payload == b"\x00\xff work" and message.message.ordering_key == "k\u00fc"
    assert dict(message.message.attributes) == {"a": "b"} and not message.last_failure
    assert jobs.stats() == {qu.STATE_LEASED: 1}
    for _ in range(2):
        [result] = jobs.ack(message.receipt)
        assert result.status.code == 0
        assert common.Durability.Name(result.result.durability) == PROMISED
    assert jobs.stats() == {} and not jobs.receive(wait=0)


def test_failed_work_comes_again_with_its_reason_and_dies(jobs):
    jobs.send(b"poison", attempts_max=2)
    for attempt in (1, 2):
        [message] = jobs.receive()
        assert message.attempt == attempt
        [result] = jobs.nack(message.receipt, delay=Duration(), reason=f"broken {attempt}")
        assert result.status.code == 0
        assert result.state == (qu.STATE_READY if attempt == 1 else qu.STATE_DEAD)
    assert message.last_failure == "broken 1"
    request = qu.PeekRequest(namespace=jobs.namespace, states=[qu.STATE_DEAD])
    [dead] = jobs.stub.Peek(request, timeout=PATIENCE_S).messages
    assert dead.last_failure == "broken 2" and dead.message.payload == b"poison"
    request = qu.RedriveRequest(namespace=jobs.namespace, state=qu.STATE_DEAD)
    assert jobs.stub.Redrive(request, timeout=PATIENCE_S).redriven == 1
    [again] = jobs.receive()
    assert again.attempt == 1 and again.message_id == dead.message_id


def test_of_a_key_one_at_a_time(jobs):
    for payload in (b"1", b"2"):
        jobs.send(payload, ordering_key="a")
    jobs.send(b"3", ordering_key="b")
    first = {}
    while len(first) < 2:
        for message in jobs.receive(messages_max=10):
            first[message.message.payload] = message
    assert sorted(first) == [b"1", b"3"]
    assert not jobs.receive(wait=0)
    jobs.ack(first[b"1"].receipt)
    [second] = jobs.receive()
    assert second.message.payload == b"2"


def test_a_worker_waits_and_a_late_one_has_lost_its_lease(jobs):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(jobs.receive, wait=40, lease=1)
        time.sleep(0.3)
        assert not waiting.done()
        jobs.send(b"at last")
        [first] = waiting.result(timeout=60)
    [second] = jobs.receive(wait=40)
    assert second.message_id == first.message_id and second.last_failure == "lease ended"
    [late] = jobs.ack(first.receipt)
    assert late.status.code == grpc.StatusCode.ABORTED.value[0] and reason(late.status) == "LEASE_LOST"
    request = qu.ExtendRequest(namespace=jobs.namespace, receipts=[second.receipt])
    [extended] = jobs.stub.Extend(request, timeout=PATIENCE_S).results
    assert extended.status.code == 0 and extended.lease_end_time.seconds > 0
    [done] = jobs.ack(second.receipt)
    assert done.status.code == 0


def test_a_repeat_is_one_message(jobs):
    first = jobs.send(b"once", token=b"token")
    assert jobs.send(b"once", token=b"token").message_id == first.message_id == b"token"
    with pytest.raises(grpc.RpcError) as refused:
        jobs.send(b"other", token=b"token")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    [message] = jobs.receive(messages_max=10)
    jobs.ack(message.receipt)
    jobs.send(b"once", token=b"token")
    assert jobs.stats() == {}


def test_wrong_calls_name_the_field(jobs):
    cases = [
        (lambda: jobs.ack(b"made up"), "receipts[0]"),
        (lambda: jobs.receive(messages_max=101), "messages_max"),
        (lambda: jobs.receive(lease=0), "lease"),
        (lambda: jobs.send(b"", attempts_max=101), "message.attempts_max"),
        (lambda: jobs.send(b"", delay=Duration(seconds=-1)), "message.delay"),
    ]
    for call, field in cases:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, field
        assert field in refused.value.details(), refused.value.details()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_json_speaks_queue(tmp_path, version, jobs):
    def call(method, **message):
        answer = call_json(tmp_path, version, QUEUE + method, {"namespace": jobs.namespace, **message})
        assert answer.status == 200, answer.body
        return answer.json()

    sent = call("Send", message={"payload": b64(b"by json"), "orderingKey": "k"})
    [message] = call("Receive", messagesMax=10, wait="20s", lease="60s")["messages"]
    assert message["messageId"] == sent["messageId"] and message["attempt"] == 1
    assert message["message"]["payload"] == b64(b"by json")
    [result] = call("Ack", receipts=[message["receipt"]])["results"]
    assert result["result"]["durability"] == PROMISED
    assert call("Stats") == {}
