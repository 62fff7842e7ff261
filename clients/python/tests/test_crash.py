"""Gateways that die, hang, or lose an answer on the way: what was acknowledged is there once, and nobody misses anything."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import threading
from collections import Counter
from functools import partial

import pytest
from conftest import PATIENCE_S, fresh, start, yaml

from prism import Client, Put, aio, errors

# Acknowledged writes between two ends of the gateway.
BETWEEN = 30


@pytest.fixture
def gateway(tmp_path):
    """A gateway that tests may kill, on SQLite, with a namespace of each API at `strong`."""
    server = start(tmp_path, "--shards", "2")
    with server:
        with Client(server.address, timeout=PATIENCE_S) as client:
            for api in ("keyvalue", "pubsub", "queue"):
                client.admin.create(yaml(api, api, "strong"))
        yield server


class Progress:
    """How many writes were acknowledged, for whoever waits until there are more."""

    def __init__(self):
        self.count, self.changed = 0, threading.Condition()

    def add(self):
        with self.changed:
            self.count += 1
            self.changed.notify_all()

    def wait(self, more):
        with self.changed:
            wanted = self.count + more
            assert self.changed.wait_for(lambda: self.count >= wanted, PATIENCE_S), f"stuck at {self.count}"


def in_thread(work):
    """Starts a thread; joining it raises what it raised."""
    result = []

    def run():
        try:
            result.append((work(), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread did not end"
        value, error = result[0]
        if error is not None:
            raise error
        return value

    return join


def write_by_threads(address, progress, stop):
    """Writes until it is stopped; what was acknowledged."""
    with Client(address, timeout=PATIENCE_S) as client:
        kv, events, jobs = (client.using(api) for api in ("keyvalue", "pubsub", "queue"))
        written = []
        while not stop.is_set():
            name = f"threads-{len(written)}"
            kv.put(name, {"n": name})
            kv.modify("counter", "n", count_up)
            events.publish({"n": name})
            jobs.send({"n": name})
            written.append(name)
            progress.add()
        return written


def write_by_asyncio(address, progress, stop):
    async def write():
        async with aio.Client(address, timeout=PATIENCE_S) as client:
            kv, events, jobs = (client.using(api) for api in ("keyvalue", "pubsub", "queue"))
            written = []
            while not stop.is_set():
                name = f"asyncio-{len(written)}"
                await kv.put(name, {"n": name})
                await kv.modify("counter", "n", count_up)
                await asyncio.gather(events.publish({"n": name}), jobs.send({"n": name}))
                written.append(name)
                progress.add()
            return written

    return asyncio.run(write())


def count_up(old):
    return str(int(old or 0) + 1)


def read_by_threads(address, count):
    """The names of the events, until there are as many as `count` says by then."""
    with Client(address, namespace="pubsub", timeout=PATIENCE_S) as client:
        got = []
        for event in client.subscribe(start="earliest", idle=PATIENCE_S):
            got.append(event["n"])
            if len(got) == count.get("total"):
                return got
        raise AssertionError(f"no event for {PATIENCE_S} s after {got[-3:]}")


def read_by_asyncio(address, count):
    async def read():
        async with aio.Client(address, namespace="pubsub", timeout=PATIENCE_S) as client:
            got = []
            async for event in client.subscribe(start="earliest", idle=PATIENCE_S):
                got.append(event["n"])
                if len(got) == count.get("total"):
                    return got
            raise AssertionError(f"no event for {PATIENCE_S} s after {got[-3:]}")

    return asyncio.run(read())


def test_kills_lose_and_double_nothing(gateway):
    """Threads and asyncio write and read at once while the gateway is killed, stopped in order, and killed again."""
    progress, stop, count = Progress(), threading.Event(), {}
    writers = [in_thread(partial(write, gateway.address, progress, stop)) for write in (write_by_threads, write_by_asyncio)]
    readers = [in_thread(partial(read, gateway.address, count)) for read in (read_by_threads, read_by_asyncio)]
    for end in (gateway.kill, gateway.stop, gateway.kill):
        progress.wait(BETWEEN)
        end()
        gateway.start()
    progress.wait(5)
    stop.set()
    written = [name for writer in writers for name in writer()]
    with Client(gateway.address, timeout=PATIENCE_S) as client:
        # One more, with which the readers look how many there are. It may overtake others.
        count["total"] = len(written) + 1
        client.using("pubsub").publish({"n": "last"})
        for reader in readers:
            assert Counter(reader()) == Counter([*written, "last"]), "each event came once"
        found = {id: item.value for id, item in client.using("keyvalue").scan()}
        assert found.pop("counter") == str(len(written)).encode(), "each swap took place once"
        assert found == {name: name.encode() for name in written}
        jobs, worked = client.using("queue"), []
        while len(worked) < len(written):
            some = jobs.receive(100, wait=PATIENCE_S / 2, lease=3600)
            assert some, f"{len(worked)} of {len(written)} messages came"
            worked += [work["n"] for work in some]
            assert all(jobs.ack(some))
        assert Counter(worked) == Counter(written) and jobs.stats().messages == {}


class Cutter:
    """A way to a gateway that loses the next answer, and the connection with it, when it is told to."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.cut = threading.Event()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        host, port = self.target.split(":")
        with client, socket.create_connection((host, int(port))) as server, contextlib.suppress(OSError):
            frames = Frames()
            while True:
                for one in select.select([client, server], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    # HEADERS of the gateway begin an answer: the call was done.
                    if one is server and frames.have_headers(data) and self.cut.is_set():
                        self.cut.clear()
                        self.cuts += 1
                        return
                    (server if one is client else client).sendall(data)


class Frames:
    """Looks for HEADERS (type 1) among the HTTP/2 frames that pass (RFC 9113 section 4.1)."""

    def __init__(self):
        self.buffer = b""

    def have_headers(self, data):
        self.buffer += data
        found = False
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            found = found or self.buffer[3] == 1
            self.buffer = self.buffer[9 + length :]
        return found


def test_a_write_whose_answer_is_lost_is_done_once(gateways, connect):
    server = gateways("sqlite")
    with Cutter(server.address) as way:
        client = connect(way.address)
        kv, events, jobs = (client.using(fresh(api)) for api in ("keyvalue", "pubsub", "queue"))
        for each, api in ((kv, "keyvalue"), (events, "pubsub"), (jobs, "queue")):
            client.admin.create(yaml(each.namespace, api, "strong"))

        def losing_the_answer(call):
            before = way.cuts
            way.cut.set()
            result = call()
            assert way.cuts == before + 1, "the answer was not lost"
            return result

        losing_the_answer(lambda: kv.put("id", {"k": "v"}))
        assert losing_the_answer(lambda: kv.compare_and_swap("id", "k", "w", expect="v"))
        published = losing_the_answer(lambda: events.publish("once"))
        batch = losing_the_answer(lambda: events.publish_batch(["a", "b"]))
        losing_the_answer(lambda: jobs.send("once"))
        (work,) = losing_the_answer(lambda: jobs.receive(wait=PATIENCE_S / 2))
        assert work.data == "once" and work.attempt == 1, "the lost answer of Receive was given again"
        assert all(losing_the_answer(lambda: jobs.ack(work)))
        assert jobs.receive() == [] and jobs.stats().messages == {}
        got = [event.data for event in events.subscribe(start="earliest", idle=2.0)]
        assert sorted(got) == ["a", "b", "once"] and len({published.id, *(each.id for each in batch)}) == 3
        assert kv.get("id") == {b"k": b"w"}
        # Without a token a repeat could do it twice, so there is none.
        name = fresh("keyvalue")
        with pytest.raises(errors.ConnectionLost) as failed:
            losing_the_answer(lambda: client.admin.create(yaml(name, "keyvalue", "strong")))
        assert failed.value.outcome_unknown and failed.value.tries == 1
        assert client.admin.get(name).name == name


def test_a_subscription_and_a_scan_go_on_where_they_were_cut(gateways, connect):
    server = gateways("memory")
    with Cutter(server.address) as way:
        client = connect(way.address)
        events, kv = client.using(fresh("pubsub")), client.using(fresh("keyvalue"))
        client.admin.create(yaml(events.namespace, "pubsub", "best-effort"))
        client.admin.create(yaml(kv.namespace, "keyvalue", "best-effort"))
        events.publish_batch([{"n": n} for n in range(300)])
        got = []
        # An answer at a time, so that most of them are still to come when the stream is cut.
        for event in events.subscribe(start="earliest", batch=10, idle=PATIENCE_S):
            got.append(event["n"])
            if len(got) in (5, 100, 200):
                # The next answer to any call on the connection takes the stream with it.
                way.cut.set()
                with contextlib.suppress(errors.ConnectionLost):
                    kv.put("id", {"k": "v"})
            if len(got) == 300:
                break
        assert sorted(got) == list(range(300)) and way.cuts >= 3
        kv.mutate(puts(200))
        seen, cuts = [], way.cuts
        for id, _ in kv.scan():
            seen.append(id)
            if len(seen) == 10:
                way.cut.set()
                kv.put("id", {"k": "v"})
        assert sorted(seen) == sorted(["id", *(f"big-{n}" for n in range(200))]) and way.cuts > cuts


def puts(count):
    """Items of 40 KB that do not shrink: more than a few pages together, and than what waits unread on the way."""
    return [Put(f"big-{n}", {"k": os.urandom(40_000)}) for n in range(count)]


def test_of_two_gateways_one_may_hang_or_be_gone(connect, tmp_path):
    with contextlib.ExitStack() as stack:
        servers = []
        for name in "ab":
            (tmp_path / name).mkdir()
            servers.append(stack.enter_context(start(tmp_path / name, "--shards", "1", "--embedded", "memory")))
        for server in servers:
            with Client(server.address, timeout=PATIENCE_S) as one:
                one.admin.create(yaml("both", "keyvalue", "best-effort"))
        both = connect(",".join(server.address for server in servers), namespace="both")
        for number in range(20):
            both.put(f"id-{number}", {"k": "v"})
        counts = []
        for server in servers:
            with Client(server.address, namespace="both", timeout=PATIENCE_S) as one:
                counts.append(len(list(one.scan())))
        assert min(counts) > 0, f"calls went to one only: {counts}"
        os.kill(servers[0].pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                both.put("id", {"k": "hangs"}, timeout=6.0)
        finally:
            os.kill(servers[0].pid, signal.SIGCONT)
        servers[0].kill()
        for _ in range(20):
            both.put("id", {"k": "gone"}, timeout=PATIENCE_S)
        assert both.get("id") == {b"k": b"gone"}
        # It was killed on purpose; the other one must end in order.
        servers[0].start()
