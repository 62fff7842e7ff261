"""Every call against real gateways, by threads and by asyncio, on a store in memory and on SQLite at `strong`."""

import asyncio
import contextlib
import gzip
import os
import threading
import time
from datetime import datetime, timezone

import grpc
import pytest
from conftest import PATIENCE_S, STORES, fresh, yaml

from prism import Client, Dead, Delete, Later, Message, Put, Token, aio, errors
from prism.keyvalue.v1 import keyvalue_pb2, keyvalue_pb2_grpc
from prism.types import Settled

# --- KeyValue


def test_put_get_delete(place, store):
    kv = place("keyvalue")
    result = kv.put("alice", {"theme": "dark", b"\xff": b"\0"})
    assert result.durability == STORES[store] and (result.lsn > 0) == (store == "sqlite")
    assert kv.get("alice") == {b"theme": b"dark", b"\xff": b"\0"}
    assert kv.get("alice", "theme", "none") == {b"theme": b"dark"}
    assert kv.get("nobody") == {} and kv.get_item("nobody", "k") is None
    kv.delete("alice", "theme")
    assert kv.get("alice") == {b"\xff": b"\0"}
    for nothing in ({}, {"start": ""}):
        with pytest.raises(ValueError, match="all=True"):
            kv.delete("alice", *[], **nothing)
    with pytest.raises(ValueError, match="all=True"):
        kv.mutate([Delete("alice", [])])
    assert kv.get("alice") == {b"\xff": b"\0"}
    kv.delete("alice", all=True)
    assert kv.get("alice") == {}


def test_ranges_limits_and_pages(place):
    kv = place("keyvalue")
    kv.put("id", {f"{n:03}": "x" * 9000 for n in range(300)})
    assert [item.key for item in kv.items("id", start="010", end="013")] == [b"010", b"011", b"012"]
    assert [item.key for item in kv.items("id", limit=2)] == [b"000", b"001"]
    # 2.7 MB: more than a page of 1 MiB.
    assert len(kv.get("id")) == 300
    kv.delete("id", start="001")
    assert list(kv.get("id")) == [b"000"]


def test_ttl_and_versions(place):
    kv = place("keyvalue")
    kv.put("id", {"k": "v"}, ttl=3600)
    item = kv.get_item("id", "k")
    assert 3000 < item.ttl <= 3600 and item.version
    kv.put("id", {"k": "v"})
    again = kv.get_item("id", "k")
    assert again.ttl is None and again.version != item.version


def test_compare_and_swap(place):
    kv = place("keyvalue")
    assert kv.compare_and_swap("id", "k", "1", absent=True)
    refused = kv.compare_and_swap("id", "k", "2", absent=True)
    assert not refused and refused.current.value == b"1"
    assert kv.compare_and_swap("id", "k", "2", expect="1")
    version = kv.get_item("id", "k").version
    assert kv.compare_and_swap("id", "k", "3", version=version)
    assert not kv.compare_and_swap("id", "k", "4", version=version)
    assert kv.compare_and_swap("id", "k", None, expect="3") and kv.get("id") == {}
    with pytest.raises(ValueError, match="expect"):
        kv.compare_and_swap("id", "k", "x")


def test_a_compressed_value_is_swapped_by_its_content(place):
    kv = place("keyvalue", compress_above=100)
    long = "long " * 1000
    kv.put("id", {"k": long})
    item = kv.get_item("id", "k")
    assert item.compression == "gzip" and len(item.raw_value) < 200 and item.value == long.encode()
    token = Token(os.urandom(16), time.time_ns())
    for _ in range(2):
        assert kv.compare_and_swap("id", "k", "short", expect=long, token=token), "a repeat has the first verdict"
    assert not kv.compare_and_swap("id", "k", "other", expect=long)
    assert kv.get("id") == {b"k": b"short"}


def test_modify_loses_no_update(place, gateways, store):
    kv = place("keyvalue")
    others = [threading.Thread(target=count_up, args=(gateways(store).address, kv.namespace)) for _ in range(3)]
    for other in others:
        other.start()
    for _ in range(10):
        kv.modify("id", "n", lambda old: str(int(old or 0) + 1))
    for other in others:
        other.join(PATIENCE_S)
    assert kv.get("id") == {b"n": b"40"}
    assert kv.modify("id", "n", lambda old: None) is None and kv.get("id") == {}


def count_up(address, namespace):
    with Client(address, namespace=namespace, timeout=PATIENCE_S) as kv:
        for _ in range(10):
            kv.modify("id", "n", lambda old: str(int(old or 0) + 1))


def test_mutate_reports_each(place):
    kv = place("keyvalue")
    kv.put("b", {"x": "1", "y": "2"})
    done = kv.mutate([Put("a", {"k": "v"}, ttl=60), Delete("b", ["x"]), Put("", {"k": "v"}), Delete("c", all=True)])
    assert [bool(each) for each in done] == [True, True, False, True]
    assert isinstance(done[2].error, errors.InvalidField) and "id" in done[2].error.field
    assert kv.get("a") == {b"k": b"v"} and kv.get("b") == {b"y": b"2"}


def test_scan(place):
    kv = place("keyvalue")
    wanted = {f"id-{n}": {b"a": b"1", b"b": b"x" * 20_000} for n in range(100)}
    kv.mutate(Put(id, items) for id, items in wanted.items())
    found = {}
    for id, item in kv.scan():
        found.setdefault(id, {})[item.key] = item.value
    assert found == wanted


def test_other_clients_understand_what_is_compressed(place, gateways, store):
    """A stub of grpcio alone: the item says gzip, and gzip reads it; what that stub writes compressed comes back whole."""
    kv = place("keyvalue")
    text = b"understood " * 5000
    kv.put("id", {"ours": text})
    with grpc.insecure_channel(gateways(store).address) as channel:
        stub = keyvalue_pb2_grpc.KeyValueStub(channel)
        asked = keyvalue_pb2.GetRequest(namespace=kv.namespace, id="id")
        item = stub.Get(asked, timeout=PATIENCE_S).items[0]
        assert item.compression == keyvalue_pb2.COMPRESSION_GZIP and gzip.decompress(item.value) == text
        theirs = keyvalue_pb2.Item(key=b"theirs", value=gzip.compress(text), compression=keyvalue_pb2.COMPRESSION_GZIP)
        stub.Put(keyvalue_pb2.PutRequest(namespace=kv.namespace, id="id", items=[theirs]), timeout=PATIENCE_S)
    assert kv.get("id") == {b"ours": text, b"theirs": text}


def test_a_repeat_by_the_caller_has_one_effect(place, store):
    kv = place("keyvalue")
    token = Token(os.urandom(16), time.time_ns())
    first = kv.put("id", {"k": "1"}, token=token)
    kv.put("id", {"k": "2"})
    again = kv.put("id", {"k": "1"}, token=token)
    assert kv.get("id") == {b"k": b"2"}, "the repeat does not bring the old value back"
    if store == "sqlite":
        assert (again.lane, again.lsn) == (first.lane, first.lsn)
        with pytest.raises(errors.TokenReused):
            kv.put("id", {"k": "3"}, token=token)


# --- PubSub


def test_what_is_published_after_the_client_was_made_is_seen_in_order(place):
    events = place("pubsub", ", ordered: true")
    sent = [events.publish({"n": n}, topic="orders.eu", key="k", attributes={"trace": str(n)}) for n in range(20)]
    subscription = events.subscribe("orders.*", idle=PATIENCE_S)
    got = [next(subscription) for _ in range(20)]
    assert [event["n"] for event in got] == list(range(20)) == [event.data["n"] for event in got]
    assert [event.id for event in got] == [each.id for each in sent]
    assert got[3].topic == "orders.eu" and got[3].key == "k" and got[3].attributes["trace"] == "3"
    assert abs((got[0].time - datetime.now(timezone.utc)).total_seconds()) < PATIENCE_S
    assert str(got[1]) == "{'n': 1}"
    events.publish("text", topic="orders.us", key="k")
    assert next(subscription).data == "text"
    subscription.close()


def test_batches_and_where_to_begin(place):
    events = place("pubsub")
    batch = events.publish_batch([{"a": 1}, b"raw", Message("t", topic="one.two", attributes={"x": "y"}), "z" * 50_000])
    assert all(batch) and len({each.id for each in batch}) == 4
    with contextlib.closing(events.subscribe(start="earliest", idle=PATIENCE_S)) as all_of_them:
        got = [next(all_of_them) for _ in range(4)]
        assert {event.id for event in got} == {each.id for each in batch}
        long = next(event for event in got if len(event.payload) == 50_000)
        assert long.raw_attributes["content-encoding"] == "gzip" and len(long.raw_payload) < 1000
        position = all_of_them.position
    events.publish("later")
    assert next(events.subscribe(after=position, idle=PATIENCE_S)).data == "later"
    assert next(events.subscribe("one.>", start="earliest", idle=PATIENCE_S)).data == "t"
    assert list(events.subscribe(start="latest", idle=0.3)) == []


def test_a_position_of_other_topics_and_a_namespace_that_is_gone_end_a_subscription(place):
    events = place("pubsub")
    events.publish("x", topic="a")
    position = next(events.subscribe("a", idle=PATIENCE_S)).position
    with pytest.raises(errors.PositionInvalid):
        next(events.subscribe("b", after=position, idle=PATIENCE_S))
    subscription = events.subscribe(idle=PATIENCE_S)
    assert next(subscription).data == "x"
    events.admin.delete(events.namespace)
    with pytest.raises(errors.NamespaceUnknown):
        next(subscription)


def test_members_of_a_group_share_and_what_is_not_committed_comes_again(place):
    events = place("pubsub", ", ordered: true")
    for number in range(12):
        events.publish({"n": number}, key=f"k{number % 4}")
    first = events.subscribe(start="earliest", group="audit", batch=1, idle=PATIENCE_S)
    got = [next(first)["n"] for _ in range(6)]
    first.commit()
    uncommitted = next(first)["n"]
    first.close()
    again = events.subscribe(group="audit", idle=PATIENCE_S)
    rest = []
    for event in again:
        rest.append(event["n"])
        again.commit()
        if len(rest) == 6:
            break
    assert uncommitted in rest and sorted(got + rest) == list(range(12))
    position = again.position
    again.close()
    events.commit("audit", position)
    assert list(events.subscribe(group="audit", idle=0.5)) == []
    with pytest.raises(errors.PositionInvalid):
        events.commit("other", position)
    hasty = events.subscribe(group="hasty", start="earliest", uncommitted_max=3, commit_timeout=1.0, idle=PATIENCE_S)
    with pytest.raises(errors.CommitTimeout):
        for _ in range(4):
            next(hasty)
    with pytest.raises(ValueError, match="no group"):
        events.subscribe().commit()


def test_a_loop_that_ended_can_be_gone_on_with(place):
    events = place("pubsub")
    subscription = events.subscribe(start="latest", idle=0.5)
    for number in range(3):
        assert list(subscription) == []
        events.publish({"n": number})
        # A slow machine may need several loops.
        tries = (next(subscription, None) for _ in range(int(PATIENCE_S / 0.5)))
        assert next(event for event in tries if event is not None)["n"] == number
    subscription.close()
    events.publish({"n": 9})
    assert list(subscription) == []


def test_a_cancelled_wait_loses_nothing(gateways):
    async def run():
        name = fresh("pubsub")
        async with aio.Client(gateways("memory").address, namespace=name, timeout=PATIENCE_S) as events:
            await events.admin.create(yaml(name, "pubsub", "best-effort"))
            subscription = events.subscribe()
            got = []
            for number in range(10):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(subscription), 0.05)
                await events.publish(str(number))
                got.append((await asyncio.wait_for(anext(subscription), PATIENCE_S)).data)
            assert got == [str(number) for number in range(10)]

    asyncio.run(run())


def test_a_loop_in_another_thread_can_be_ended(gateways):
    name = fresh("pubsub")
    with Client(gateways("memory").address, namespace=name, timeout=PATIENCE_S) as events:
        events.admin.create(yaml(name, "pubsub", "best-effort"))
        subscription = events.subscribe()
        events.publish("one")
        got, seen = [], threading.Event()

        def read():
            for event in subscription:
                got.append(event.data)
                seen.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert seen.wait(PATIENCE_S)
        subscription.close()
        reader.join(PATIENCE_S)
        assert not reader.is_alive() and got == ["one"]


# --- Queue


def test_send_receive_and_settle(place):
    jobs = place("queue")
    sent = [jobs.send({"order": n}, attributes={"kind": "order"}) for n in range(3)]
    assert len({each.id for each in sent}) == 3
    got = receive_all(jobs, 3)
    assert sorted(work["order"] for work in got) == [0, 1, 2] and all(work.attempt == 1 for work in got)
    assert all(jobs.ack(got[0]))
    assert [each.state for each in jobs.nack(got[1], delay=0.0, reason="not yet")] == ["READY"]
    assert [each.state for each in jobs.nack(got[2], dead=True, reason="never")] == ["DEAD"]
    (again,) = jobs.receive(wait=PATIENCE_S / 2)
    assert again.id == got[1].id and again.attempt == 2 and again.last_failure == "not yet"
    (lost,) = jobs.ack(got[1])
    assert isinstance(lost.error, errors.LeaseLost) and not lost
    (extended,) = jobs.extend(again, 120)
    assert extended.lease_end > again.lease_end
    assert jobs.ack(again) == [Settled(None)] and jobs.stats().messages == {"DEAD": 1}
    assert jobs.receive() == []


def receive_all(jobs, count):
    """What was sent reaches the store one after the other: it may take several calls to have it all."""
    got = []
    while len(got) < count:
        more = jobs.receive(10, wait=PATIENCE_S / 2, lease=600)
        assert more, f"only {len(got)} of {count} came"
        got += more
    return got


def test_batches_of_work(place):
    jobs = place("queue")
    done = jobs.send_batch([Message({"n": 1}, delay=3600), "two", "y" * 50_000])
    assert all(done)
    got = receive_all(jobs, 2)
    assert sorted(work.payload[:3] for work in got) == [b"two", b"yyy"] and max(len(work.payload) for work in got) == 50_000
    assert jobs.stats().messages == {"DELAYED": 1, "LEASED": 2}
    with pytest.raises(ValueError, match="topic"):
        jobs.send(Message("x", topic="t"))


def test_work_acks_what_is_done_and_gives_back_what_failed(connect, gateways):
    name = fresh("queue")
    jobs = connect(gateways("memory").address, namespace=name)
    jobs.admin.create(yaml(name, "queue", "best-effort"))
    jobs.send_batch(["good", "bad once", "dead", "later"])
    seen = []

    def handle(work):
        seen.append((work.data, work.attempt))
        if work.data == "dead":
            raise Dead("no such order")
        if work.data == "bad once" and work.attempt == 1:
            raise RuntimeError("try again")
        if work.data == "later" and work.attempt == 1:
            raise Later(0.1)

    # The default wait after a failure is a second.
    assert jobs.work(handle, workers=2, idle=2.0) == 3
    assert sorted(seen) == [("bad once", 1), ("bad once", 2), ("dead", 1), ("good", 1), ("later", 1), ("later", 2)]
    assert jobs.stats().messages == {"DEAD": 1}


class Watched(Client):
    """A client that notes until when its leases were extended."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.ends, self.twice = [], threading.Event()

    def extend(self, *arguments, **named):
        settled = super().extend(*arguments, **named)
        self.ends += [each.lease_end for each in settled if each]
        if len(self.ends) > 1:
            self.twice.set()
        return settled


def test_a_lease_is_extended_while_its_handler_runs(gateways):
    name = fresh("queue")
    with Watched(gateways("memory").address, namespace=name, timeout=PATIENCE_S) as jobs:
        jobs.admin.create(yaml(name, "queue", "best-effort"))
        jobs.send("long")
        assert jobs.work(lambda work: jobs.twice.wait(PATIENCE_S), lease=3.0, idle=0.2) == 1
        assert jobs.ends == sorted(set(jobs.ends)) and len(jobs.ends) > 1
        assert jobs.stats().messages == {}


# --- Errors and administration


def test_errors_have_types_fields_and_remedies(place):
    kv = place("keyvalue")
    with pytest.raises(errors.InvalidField) as failed:
        kv.put("", {"k": "v"})
    assert failed.value.field == "id" and failed.value.request_id and failed.value.tries == 1
    with pytest.raises(errors.OtherApi, match="KeyValue"):
        kv.publish("x")
    with pytest.raises(errors.NamespaceUnknown):
        kv.using("nobody-made-this").get("id")
    with pytest.raises(errors.InvalidField):
        kv.put("id", {"k": os.urandom(9 << 20)})
    with pytest.raises(TypeError, match="json.dumps"):
        kv.put("id", {"k": {"no": "bytes"}})
    with pytest.raises(ValueError, match="namespace"):
        kv.using("").get("id")


def test_namespaces(place):
    client = place("keyvalue")
    name = client.namespace
    assert client.admin.get(name).client_api == "keyvalue" and name in [each.name for each in client.admin.list()]
    with pytest.raises(errors.NamespaceExists):
        client.admin.create(client.admin.get(name).yaml)
    changed = client.admin.update(client.admin.get(name).yaml.replace("8MB", "4MB"), base_version=1)
    assert changed.version == 2
    with pytest.raises(errors.VersionChanged):
        client.admin.update(changed.yaml, base_version=1)
    (problem,) = client.admin.validate("namespace: ok-name\nteam: t\nclient_api: keyvaleu\n")
    assert problem.field == "client_api" and "keyvalue" in problem.suggestion and problem.line == 3
    with pytest.raises(errors.NamespaceInvalid) as failed:
        client.admin.create("namespace: Not A Name\nteam: t\nclient_api: keyvalue\n")
    assert failed.value.problems
    client.admin.delete(name)
    with pytest.raises(errors.NamespaceNotFound):
        client.admin.get(name)


def test_a_gateway_that_is_not_there_is_an_error_that_says_so(connect):
    from server import free_port

    address = f"127.0.0.1:{free_port()}"
    client = connect(address, namespace="n", timeout=0.5)
    with pytest.raises(errors.ConnectionLost, match=address) as failed:
        client.get("id")
    assert isinstance(failed.value, ConnectionError) and failed.value.tries > 1 and not failed.value.outcome_unknown
    with pytest.raises(errors.ConnectionLost):
        next(connect(address, namespace="n", timeout=0.5).subscribe())
