"""The client for threads. `prism.aio` has the same for asyncio."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from prism._core import admin, keyvalue, pubsub, queue
from prism._core.call import Core
from prism._core.settings import core_of
from prism._core.work import Leases, verdict_of
from prism._threads import Channels, Runner
from prism.errors import PrismError
from prism.types import (
    Bytes,
    Delete,
    Done,
    Event,
    Gap,
    Item,
    Message,
    Namespace,
    Problem,
    Published,
    Put,
    Settled,
    Start,
    Stats,
    Swap,
    Token,
    Work,
    WriteResult,
)

log = logging.getLogger("prism")

# How long one Receive of a worker waits; it looks that often whether it shall stop. Seconds.
_POLL_S = 5.0


class Client:
    """A connection to Prism for one namespace. Threads may share it.

    `Client(namespace="user-events")`, or `Client("a:8980,b:8980", namespace="user-events")` for several gateways, of
    which one that fails is left out for a while. Without addresses: PRISM_SERVER, else 127.0.0.1:8980. A name alone is
    the namespace; what has a colon is an address.

    `timeout`: seconds for a call, all its tries together; each method takes another one. `tries`: how often a call is
    sent where a gateway refuses it for a while. `compress_above`: values and payloads above so many bytes are sent
    compressed, None: never. `decompress=False` gives them back as they are stored. `decompressed_max`: bytes that one
    value may have decompressed.

    Gateways with TLS have `https://` before their addresses. `ca`: file with the certificates that sign theirs; `cert`
    and `cert_key`: files with the client's own certificate and its private key. All in PEM; without them PRISM_CA,
    PRISM_CERT and PRISM_CERT_KEY.
    """

    def __init__(
        self,
        server_or_namespace: str = "",
        /,
        *,
        namespace: str = "",
        server: str = "",
        timeout: float = 10.0,
        tries: int = 4,
        compress_above: int | None = 16 << 10,
        decompress: bool = True,
        decompressed_max: int = 64 << 20,
        ca: str | None = None,
        cert: str | None = None,
        cert_key: str | None = None,
    ) -> None:
        files = (ca, cert, cert_key)
        self._core = core_of(
            server_or_namespace, namespace, server, timeout, tries, compress_above, decompress, decompressed_max, files
        )
        self._channels = Channels(self._core.addresses, self._core.tls)
        self.admin = Admin(self._core, self._channels)

    def using(self, namespace: str) -> Client:
        """A client for another namespace on the same connections. Closing either closes both."""
        view = copy.copy(self)
        view._core = self._core.using(namespace)
        return view

    @property
    def namespace(self) -> str:
        """The namespace that the calls are about."""
        return self._core.namespace

    def close(self) -> None:
        """Ends calls, subscriptions and connections."""
        self._channels.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _runner(self) -> Runner:
        return Runner(self._channels)

    # --- KeyValue

    def put(
        self,
        id: str,
        items: Mapping[Bytes, Bytes],
        *,
        ttl: float | None = None,
        token: Token | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Writes 1 to 1,000 items under an id, all or none; they disappear `ttl` seconds later."""
        return self._runner().run(keyvalue.put(self._core, id, items, ttl, token, timeout))

    def get(self, id: str, *keys: Bytes, timeout: float | None = None) -> dict[bytes, bytes]:
        """The items of an id, or those of some keys, as keys and values. Empty where there are none."""
        return {item.key: item.value for item in self.items(id, *keys, timeout=timeout)}

    def get_item(self, id: str, key: Bytes, *, timeout: float | None = None) -> Item | None:
        """One item, with its version and what is left of its time; None where there is none."""
        return self._runner().run(keyvalue.get_item(self._core, id, key, timeout))

    def items(
        self,
        id: str,
        *keys: Bytes,
        start: Bytes = b"",
        end: Bytes = b"",
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Item]:
        """The items of an id in key order: all, some keys, or from `start` up to, not including, `end`. Read by pages."""
        return self._runner().iterate(keyvalue.items(self._core, id, keys, start, end, limit, timeout))

    def delete(
        self,
        id: str,
        *keys: Bytes,
        start: Bytes = b"",
        end: Bytes = b"",
        all: bool = False,
        token: Token | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Deletes items of an id: some keys, those from `start` up to `end`, or with `all=True` all of them.

        One of these must be given, so that an empty list of keys deletes nothing. What is not there is no error.
        """
        return self._runner().run(keyvalue.delete(self._core, id, keys, start, end, all, token, timeout))

    def mutate(
        self, mutations: Iterable[Put | Delete], *, token: Token | None = None, timeout: float | None = None
    ) -> list[Done]:
        """Does 1 to 1,000 Puts and Deletes, each by itself; what became of each, in their order."""
        return self._runner().run(keyvalue.mutate(self._core, mutations, token, timeout))

    def compare_and_swap(
        self,
        id: str,
        key: Bytes,
        value: Bytes | None,
        *,
        absent: bool = False,
        expect: Bytes | None = None,
        version: bytes | None = None,
        ttl: float | None = None,
        token: Token | None = None,
        timeout: float | None = None,
    ) -> Swap:
        """Writes the value (None: deletes the item) if there is none, it has a value, or a version. One must be given."""
        return self._runner().run(
            keyvalue.compare_and_swap(self._core, id, key, value, absent, expect, version, ttl, token, timeout)
        )

    def modify(
        self,
        id: str,
        key: Bytes,
        change: Callable[[bytes | None], Bytes | None],
        *,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> bytes | None:
        """Gives `change` the value (None: absent), writes what it returns (None: deletes); again if others were faster."""
        return self._runner().run(keyvalue.modify(self._core, id, key, change, ttl, timeout))

    def scan(self, *, timeout: float | None = None) -> Iterator[tuple[str, Item]]:
        """All items of the namespace with their ids; those of an id come together. `timeout`: seconds without progress."""
        return self._runner().iterate(keyvalue.scan(self._core, timeout))

    # --- PubSub

    def publish(
        self,
        data: Any,
        *,
        topic: str = "",
        key: str = "",
        attributes: Mapping[str, str] | None = None,
        token: Token | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Publishes bytes, str, a protobuf message, what JSON can hold, or a Message."""
        message = pubsub.message_of(data, topic, key, attributes)
        return self._runner().run(pubsub.publish(self._core, message, token, timeout))

    def publish_batch(
        self, messages: Iterable[Message | Any], *, token: Token | None = None, timeout: float | None = None
    ) -> list[Done]:
        """Publishes 1 to 1,000 messages, each by itself; what became of each, in their order."""
        return self._runner().run(pubsub.publish_batch(self._core, messages, token, timeout))

    def subscribe(
        self,
        *topics: str,
        start: Start | None = None,
        after: bytes | None = None,
        batch: int = 0,
        idle: float | None = None,
        patience: float | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        group: str = "",
        uncommitted_max: int = 0,
        commit_timeout: float | None = None,
    ) -> Subscription:
        """Events as they come, from this client's creation on; `start` or the position `after` say otherwise.

        `topics` are patterns (`orders.*`, `orders.>`). `idle` ends the iteration after so many seconds without an event.
        `patience` bounds the seconds without a connection, once there was one. `on_gap` is called where messages are
        missing; without it that is logged.

        Subscribers of one `group` share the events, and its place is what they commit (`Subscription.commit`); `start`
        counts only when it is made. At `uncommitted_max` events without a commit nothing more comes (0: 1,000); after
        `commit_timeout` seconds without one CommitTimeout is raised, and others get the events.
        """
        track = pubsub.Track(pubsub.start_of(self._core, start, after), self._core.decompressed_max(), group=group)
        options = pubsub.SubscribeOptions(topics, batch, idle, patience, on_gap, uncommitted_max, commit_timeout)
        return Subscription(self._core, self._channels, track, options)

    def commit(self, group: str, position: bytes, *, timeout: float | None = None) -> None:
        """Says that a group is done with the position of an event, and with all before it. A repeat is harmless."""
        self._runner().run(pubsub.commit(self._core, group, position, timeout))

    # --- Queue

    def send(
        self,
        data: Any,
        *,
        key: str = "",
        attributes: Mapping[str, str] | None = None,
        delay: float | None = None,
        attempts_max: int = 0,
        token: Token | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Puts a message into the queue; nobody gets it before `delay` seconds."""
        message = pubsub.message_of(data, "", key, attributes, delay, attempts_max)
        return self._runner().run(queue.send(self._core, message, token, timeout))

    def send_batch(
        self, messages: Iterable[Message | Any], *, token: Token | None = None, timeout: float | None = None
    ) -> list[Done]:
        """Puts 1 to 1,000 messages into the queue, each by itself; what became of each, in their order."""
        return self._runner().run(queue.send_batch(self._core, messages, token, timeout))

    def receive(
        self, most: int = 1, *, wait: float = 0.0, lease: float | None = None, timeout: float | None = None
    ) -> list[Work]:
        """Up to `most` messages, this caller's for `lease` seconds (30); waits up to `wait` seconds for the first."""
        return self._runner().run(queue.receive(self._core, most, wait, lease, timeout))

    def ack(self, work: Work | bytes | Sequence[Work | bytes], *, timeout: float | None = None) -> list[Settled]:
        """The work is done: the messages do not come again."""
        return self._runner().run(queue.ack(self._core, work, timeout))

    def nack(
        self,
        work: Work | bytes | Sequence[Work | bytes],
        *,
        delay: float | None = None,
        reason: str = "",
        dead: bool = False,
        uncounted: bool = False,
        timeout: float | None = None,
    ) -> list[Settled]:
        """The work failed: the messages come again, after `delay` seconds or later each time, or are put aside as `dead`."""
        return self._runner().run(queue.nack(self._core, work, delay, reason, dead, uncounted, timeout))

    def extend(
        self,
        work: Work | bytes | Sequence[Work | bytes],
        lease: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[Settled]:
        """The work goes on: the messages are this caller's for `lease` seconds (30) from now."""
        return self._runner().run(queue.extend(self._core, work, lease, timeout))

    def stats(self, *, timeout: float | None = None) -> Stats:
        """How many messages the queue has in each state."""
        return self._runner().run(queue.stats(self._core, timeout))

    def work(
        self,
        handler: Callable[[Work], object],
        *,
        workers: int = 1,
        lease: float = 30.0,
        idle: float | None = None,
        stop: threading.Event | None = None,
    ) -> int:
        """Gives each message to the handler: returned means done, raised means again later; see Dead and Later.

        `workers` handlers run at once, in threads of their own; their leases are extended meanwhile. Ends within 5 s
        of `stop`, or after `idle` seconds without a message; handlers that run then end first. Returns how many were done.
        """
        return _Workers(self, handler, lease, idle, stop or threading.Event()).run(workers)


class Subscription:
    """Events of a namespace, in a `for` loop. It reconnects by itself, and goes on after the last event.

    So does another loop after one that ended, whether by `idle`, `break` or an error; after `close` there is no more.
    """

    def __init__(self, core: Core, channels: Channels, track: pubsub.Track, options: pubsub.SubscribeOptions) -> None:
        self._core, self._channels, self._track, self._options = core, channels, track, options
        self._runner = Runner(channels)
        self._events: Iterator[Event] | None = None
        self._closed = False

    @property
    def position(self) -> bytes:
        """For `subscribe(after=…)`: right after the last answer of which all events were handed out."""
        return self._track.position

    def commit(self, *, timeout: float | None = None) -> None:
        """Of a group: says that all events up to `position` are done. Cheap where nothing is new since the last one."""
        position = pubsub.to_commit(self._track)
        if position:
            Runner(self._channels).run(pubsub.commit(self._core, self._track.group, position, timeout))
            self._track.committed = position

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._events is None:
            self._runner = Runner(self._channels)
            self._events = self._runner.iterate(pubsub.subscribe(self._core, self._track, self._options))
        if self._closed:
            raise StopIteration
        try:
            return next(self._events)
        except BaseException:
            # What was running has ended with it; the track knows where to go on.
            self._events = None
            raise

    def close(self) -> None:
        """Ends the subscription, and a loop over it in another thread."""
        self._closed = True
        self._runner.stop()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Workers:
    """A run of `work`: threads that receive, handle and settle one message after the other, and one that extends leases."""

    def __init__(
        self, client: Client, handler: Callable[[Work], object], lease: float, idle: float | None, stop: threading.Event
    ) -> None:
        self._client, self._handler, self._idle = client, handler, idle
        self._stop = stop
        self._given_up = False
        self._ended = threading.Event()
        self._leases = Leases(lease)
        self._last = time.monotonic()

    def run(self, workers: int) -> int:
        if workers < 1:
            raise ValueError(f"workers: {workers} is not 1 or more")
        with ThreadPoolExecutor(workers + 1, thread_name_prefix="prism-work") as pool:
            keeper = pool.submit(self._keep)
            futures = [pool.submit(self._worker) for _ in range(workers)]
            try:
                return sum(future.result() for future in futures)
            finally:
                # Also after an error or Ctrl-C: nothing more is received, what is under way ends.
                self._given_up = True
                for future in futures:
                    future.exception()
                self._ended.set()
                keeper.result()

    def _wait(self) -> float:
        """How long the next Receive may wait."""
        if self._idle is None:
            return _POLL_S
        return min(_POLL_S, max(0.05, self._last + self._idle - time.monotonic()))

    def _goes_on(self) -> bool:
        idle = self._idle is not None and time.monotonic() - self._last >= self._idle
        return not (self._stop.is_set() or self._given_up or idle)

    def _worker(self) -> int:
        done = 0
        while self._goes_on():
            try:
                received = self._client.receive(1, wait=self._wait(), lease=self._leases.lease)
            except PrismError as error:
                if not error.outcome_unknown and error.retry_after is None:
                    self._given_up = True
                    raise
                log.warning("receiving from %s: %s", self._client.namespace, error)
                self._stop.wait(1.0)
                continue
            for work in received:
                self._last = time.monotonic()
                done += self._handle(work)
                self._last = time.monotonic()
        return done

    def _handle(self, work: Work) -> bool:
        self._leases.begin(work, time.monotonic())
        failure: Exception | None = None
        try:
            self._handler(work)
        except Exception as error:
            failure = error
        finally:
            self._leases.end(work)
        verdict = verdict_of(failure)
        if not verdict.done:
            log.warning("work of %s failed (attempt %s): %s", self._client.namespace, work.attempt, verdict.reason)
        try:
            if verdict.done:
                settled = self._client.ack(work)
            else:
                settled = self._client.nack(work, delay=verdict.delay, reason=verdict.reason, dead=verdict.dead)
        except PrismError as error:
            log.warning("work of %s comes again: %s", self._client.namespace, error)
            return False
        for each in settled:
            if each.error is not None:
                log.warning("work of %s: %s", self._client.namespace, each.error)
        return verdict.done and all(settled)

    def _keep(self) -> None:
        while not self._ended.wait(self._leases.pause):
            receipts = self._leases.due(time.monotonic())
            if not receipts:
                continue
            try:
                settled = self._client.extend(receipts, self._leases.lease, timeout=self._leases.lease / 3)
            except PrismError as error:
                log.warning("leases of %s were not extended: %s", self._client.namespace, error)
                continue
            for receipt, each in zip(receipts, settled, strict=True):
                if each.error is not None:
                    self._leases.lost(receipt)
                    log.warning("a lease of %s was not extended: %s", self._client.namespace, each.error)


class Admin:
    """Namespaces: create, change, list, delete. `client.admin`."""

    def __init__(self, core: Core, channels: Channels) -> None:
        self._core, self._channels = core, channels

    def _runner(self) -> Runner:
        return Runner(self._channels)

    def validate(self, yaml: str, *, timeout: float | None = None) -> list[Problem]:
        """What is wrong with a namespace file; empty where it is fine."""
        return self._runner().run(admin.validate(self._core, yaml, timeout))

    def create(self, yaml: str, *, timeout: float | None = None) -> Namespace:
        """Creates a namespace from its file. It is ready when this returns."""
        return self._runner().run(admin.create(self._core, yaml, timeout))

    def update(self, yaml: str, *, base_version: int = 0, timeout: float | None = None) -> Namespace:
        """Puts a new file in the place of a namespace's, if that has the version `base_version` (0: any)."""
        return self._runner().run(admin.update(self._core, yaml, base_version, timeout))

    def get(self, name: str, *, timeout: float | None = None) -> Namespace:
        """What a namespace is."""
        return self._runner().run(admin.get(self._core, name, timeout))

    def list(self, *, timeout: float | None = None) -> Iterator[Namespace]:
        """All namespaces, in the order of their names."""
        return self._runner().iterate(admin.list_all(self._core, timeout))

    def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a namespace and all its data."""
        return self._runner().run(admin.delete(self._core, name, timeout))
