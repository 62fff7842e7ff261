"""PubSub by grpcio, by curl as server-sent events, and by Connect streaming: publish, subscribe, go on, end."""

import json
import os
import struct
import subprocess
import urllib.parse

import grpc
import pytest
from conftest import DURABILITY, OPTIONS, PATIENCE_S, PROMISED, TARGET, status_details
from prism.admin.v1 import namespaces_pb2 as admin
from prism.admin.v1 import namespaces_pb2_grpc
from prism.common.v1 import common_pb2 as common
from prism.pubsub.v1 import pubsub_pb2 as ps
from prism.pubsub.v1 import pubsub_pb2_grpc
from test_http import b64, call_json

PUBLISH = "/prism.pubsub.v1.PubSub/Publish"
SUBSCRIBE = "/prism.pubsub.v1.PubSub/Subscribe"


class Events:
    """A namespace of its own, and the stubs for it."""

    def __init__(self, channel, namespace):
        self.namespace = namespace
        self.stub = pubsub_pb2_grpc.PubSubStub(channel)
        self.admin = namespaces_pb2_grpc.NamespacesStub(channel)

    def publish(self, payload, topic="orders", key="k", token=None):
        message = ps.Message(topic=topic, payload=payload, ordering_key=key, attributes={"a": "b"})
        request = ps.PublishRequest(namespace=self.namespace, message=message)
        if token:
            request.idempotency_token.token = token
            request.idempotency_token.generation_time.GetCurrentTime()
        return self.stub.Publish(request, timeout=PATIENCE_S)

    def subscribe(self, *topics, **start):
        request = ps.SubscribeRequest(namespace=self.namespace, topics=topics, start=ps.StartAt(**start))
        return self.stub.Subscribe(request, timeout=PATIENCE_S)

    def delete(self):
        self.admin.Delete(admin.DeleteRequest(name=self.namespace), timeout=PATIENCE_S)


@pytest.fixture
def events(fresh_id):
    with grpc.insecure_channel(TARGET, OPTIONS) as channel:
        events = Events(channel, f"events-{fresh_id}")
        needs = f"needs: {{durability: {DURABILITY}, ordered: true}}"
        yaml = f"namespace: {events.namespace}\nteam: conformance\nclient_api: pubsub\n{needs}\n"
        events.admin.Create(admin.CreateRequest(yaml=yaml), timeout=PATIENCE_S)
        yield events
        try:
            events.delete()
        except grpc.RpcError as gone:
            assert gone.code() == grpc.StatusCode.NOT_FOUND, gone


def payloads(stream, count):
    """The payloads of the next messages, and the last position."""
    found, position = [], b""
    for answer in stream:
        found += [one.message.payload for one in answer.messages]
        position = answer.position
        if len(found) >= count:
            return found, position
    raise AssertionError(f"the stream ended after {found}")


def test_a_subscription_sees_what_comes_and_goes_on_from_its_position(events):
    events.publish(b"before")
    stream = events.subscribe("orders", start=ps.START_LATEST)
    first = next(stream)
    assert not first.messages and first.position
    reply = events.publish(b"one")
    assert common.Durability.Name(reply.result.durability) == PROMISED and reply.message_id
    events.publish(b"other", topic="bills")
    events.publish(b"two")
    found, position = payloads(stream, 2)
    assert found == [b"one", b"two"]
    stream.cancel()
    events.publish(b"three")
    rest, _ = payloads(events.subscribe("orders", position=position), 1)
    assert rest == [b"three"]
    everything, _ = payloads(events.subscribe(start=ps.START_EARLIEST), 5)
    assert sorted(everything) == [b"before", b"one", b"other", b"three", b"two"]


def test_a_repeat_is_stored_once_and_another_call_is_refused(events):
    token = os.urandom(16)
    ids = {events.publish(b"once", token=token).message_id for _ in range(3)}
    assert ids == {token}
    with pytest.raises(grpc.RpcError) as refused:
        events.publish(b"another", token=token)
    assert status_details(refused.value)["ErrorInfo"].reason == "TOKEN_REUSED"
    events.publish(b"last")
    assert payloads(events.subscribe(start=ps.START_EARLIEST), 2)[0] == [b"once", b"last"]


def test_a_deleted_namespace_ends_its_streams(events):
    stream = events.subscribe(start=ps.START_LATEST)
    next(stream)
    events.delete()
    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert ended.value.code() == grpc.StatusCode.NOT_FOUND
    assert status_details(ended.value)["ErrorInfo"].reason == "NAMESPACE_UNKNOWN"


class Curl:
    """A stream that curl reads."""

    def __init__(self, body, *arguments, query=None):
        command = ["curl", "--silent", "--no-buffer", "--max-time", str(PATIENCE_S), *arguments]
        command += ["--data-binary", "@-", f"http://{TARGET}{SUBSCRIBE}"] if query is None else [f"http://{TARGET}{SUBSCRIBE}?{query}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdin.write(body or b"")
        self.process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def event(self):
        """The fields of the next event of server-sent events."""
        fields = {}
        for line in self.process.stdout:
            line = line.decode().rstrip("\n")
            if line.startswith(":") or line.startswith("retry:"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                return fields
        raise AssertionError("the stream ended")

    def envelope(self):
        """Flag and message of the next envelope of Connect streaming."""
        flag, length = struct.unpack(">BI", self.process.stdout.read(5))
        return flag, json.loads(self.process.stdout.read(length))


def sse(events, *more):
    request = {"namespace": events.namespace, "topics": ["orders"], "start": {"start": "START_EARLIEST"}}
    fields = ["--header", "content-type: application/json", "--header", "accept: text/event-stream"]
    return Curl(json.dumps(request).encode(), *fields, *more)


def by_get(events, *more):
    """As an EventSource asks: by GET, with the request in the query."""
    request = {"namespace": events.namespace, "topics": ["orders"], "start": {"start": "START_EARLIEST"}}
    query = urllib.parse.urlencode({"encoding": "json", "message": json.dumps(request)})
    return Curl(None, "--header", "accept: text/event-stream", *more, query=query)


def sent(event):
    return [one["message"]["payload"] for one in json.loads(event["data"]).get("messages", [])]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_server_sent_events_go_on_after_the_last_event_id(tmp_path, events, version):
    with sse(events, version) as stream:
        assert sent(stream.event()) == []
        message = {"namespace": events.namespace, "message": {"topic": "orders", "payload": b64(b"one"), "orderingKey": "k"}}
        answer = call_json(tmp_path, version, PUBLISH, message)
        assert answer.json()["result"]["durability"] == PROMISED
        event = stream.event()
        assert sent(event) == [b64(b"one")]
    events.publish(b"two")
    with sse(events, version, "--header", f"last-event-id: {event['id']}") as stream:
        assert sent(stream.event()) == []
        assert sent(stream.event()) == [b64(b"two")]
        events.delete()
        error = stream.event()
        assert error["event"] == "error" and "NAMESPACE_UNKNOWN" in error["data"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_subscription_by_get_as_event_source_makes_it(events, version):
    with by_get(events, version) as stream:
        assert sent(stream.event()) == []
        events.publish(b"one")
        event = stream.event()
        assert sent(event) == [b64(b"one")]
    events.publish(b"two")
    # It connects again by itself, with the id of the last event that came.
    with by_get(events, version, "--header", f"last-event-id: {event['id']}") as stream:
        assert sent(stream.event()) == []
        assert sent(stream.event()) == [b64(b"two")]


def test_a_group_is_committed_listed_reset_and_deleted(events):
    for number in range(3):
        events.publish(str(number).encode())

    def join():
        start = ps.StartAt(start=ps.START_EARLIEST)
        return events.stub.Subscribe(ps.SubscribeRequest(namespace=events.namespace, group="audit", start=start), timeout=PATIENCE_S)

    def call(method, request, **more):
        return getattr(events.stub, method)(request(namespace=events.namespace, **more), timeout=PATIENCE_S)

    stream = join()
    found, position = payloads(stream, 3)
    assert found == [b"0", b"1", b"2"]
    assert call("Commit", ps.CommitRequest, group="audit", position=position).result.applied
    (group,) = call("ListGroups", ps.ListGroupsRequest).groups
    assert (group.name, group.subscribers, group.messages_behind) == ("audit", 1, 0)
    assert group.partitions == group.partitions_held and group.HasField("last_commit_time")
    result = call("ResetGroup", ps.ResetGroupRequest, group="audit", start=ps.StartAt(start=ps.START_EARLIEST)).result
    assert common.Durability.Name(result.durability) == PROMISED and result.applied
    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert status_details(ended.value)["ErrorInfo"].reason == "GROUP_RESET"
    with pytest.raises(grpc.RpcError) as late:
        call("Commit", ps.CommitRequest, group="audit", position=position)
    assert late.value.code() == grpc.StatusCode.ABORTED
    stream = join()
    assert payloads(stream, 3)[0] == [b"0", b"1", b"2"]
    call("DeleteGroup", ps.DeleteGroupRequest, group="audit")
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert not call("ListGroups", ps.ListGroupsRequest).groups


def test_a_get_takes_part_in_no_group(events):
    request = json.dumps({"namespace": events.namespace, "group": "audit"})
    query = urllib.parse.urlencode({"encoding": "json", "message": request})
    with Curl(None, "--header", "accept: text/event-stream", query=query) as stream:
        error = stream.event()
        assert error["event"] == "error" and "group" in error["data"]


def test_connect_streaming_in_json(events):
    request = json.dumps({"namespace": events.namespace}).encode()
    body = struct.pack(">BI", 0, len(request)) + request
    with Curl(body, "--http1.1", "--header", "content-type: application/connect+json") as stream:
        flag, first = stream.envelope()
        assert flag == 0 and "messages" not in first and first["position"]
        events.publish(b"one")
        flag, answer = stream.envelope()
        assert flag == 0 and answer["messages"][0]["message"]["attributes"] == {"a": "b"}
        events.delete()
        flag, end = stream.envelope()
        assert flag == 2 and end["error"]["code"] == "not_found"
