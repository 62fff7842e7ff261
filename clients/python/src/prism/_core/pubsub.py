"""PubSub: publishing, and a subscription that goes on where it was whatever breaks."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prism._core import methods
from prism._core.call import Core, unary
from prism._core.content import seal
from prism._core.effects import Emit, Failure, Idle, Next, Open, Operation, Reply, Sleep
from prism._core.received import time_of
from prism._core.results import done_of, result_of
from prism._core.retry import Backoff, is_of_the_gateway, may_reopen
from prism.errors import PrismError
from prism.pubsub.v1 import pubsub_pb2 as ps
from prism.types import Done, Event, Gap, Message, Published, Start, Token

log = logging.getLogger("prism")

_RECONNECT = Backoff(first=0.05, most=5.0)
# Ids that a subscription remembers, to leave out what comes again. An answer has at most 1,000 messages.
_REMEMBERED = 10_000


def _fill(core: Core, place: ps.Message, message: Message) -> None:
    payload, attributes = seal(message.data, message.attributes, core.settings.compress_above)
    place.topic, place.payload, place.ordering_key = message.topic, payload, message.key
    place.attributes.update(attributes)


def publish(core: Core, message: Message, token: Token | None, timeout: float | None) -> Operation[Published]:
    request = ps.PublishRequest(namespace=core.name())
    _fill(core, request.message, message)
    used = core.token(request, token)
    answer = yield from unary(core, methods.PUBLISH, request, ps.PublishResponse, timeout, used)
    return Published(answer.message_id, result_of(answer.result))


def message_of(
    data: Any, topic: str, key: str, attributes: Mapping[str, str] | None, delay: float | None = None, attempts_max: int = 0
) -> Message:
    """A message from the arguments of publish or send; one that is a Message already must come alone."""
    if isinstance(data, Message):
        if topic or key or attributes or delay is not None or attempts_max:
            raise TypeError("data: a Message says all by itself; leave the other arguments out")
        return data
    return Message(data, topic, key, attributes or {}, delay, attempts_max)


def publish_batch(core: Core, messages: Iterable[Any], token: Token | None, timeout: float | None) -> Operation[list[Done]]:
    request = ps.PublishBatchRequest(namespace=core.name())
    for each in messages:
        _fill(core, request.messages.add(), message_of(each, "", "", None))
    used = core.token(request, token)
    answer = yield from unary(core, methods.PUBLISH_BATCH, request, ps.PublishBatchResponse, timeout, used)
    return [done_of(each, each.message_id) for each in answer.results]


@dataclass
class Track:
    """Where a subscription is: what to ask for next, and what was handed out already.

    The position moves on only when the last message of an answer is handed out, so that nothing is skipped, wherever
    the connection breaks. The gateway may deliver a message again: the ids of the last 10,000 keep it from the reader.
    """

    start: ps.StartAt
    decompressed_max: int | None = None
    position: bytes = b""
    # Whether an answer has come: the subscription stands.
    stands: bool = False
    # Of a group: the store keeps the place, and what was not committed comes again.
    group: str = ""
    # The position that was committed last.
    committed: bytes = b""
    _seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _gap: Gap | None = None

    def place(self) -> ps.StartAt:
        """The place to begin at, now."""
        return ps.StartAt(position=self.position) if self.position and not self.group else self.start

    def take(self, answer: ps.SubscribeResponse) -> Iterator[Event | Gap]:
        """The events of an answer that are new, each after it was noted; gaps as they are found."""
        self.stands = True
        if answer.HasField("gap"):
            missing = answer.gap
            oldest = time_of(missing.oldest_left_time) if missing.HasField("oldest_left_time") else None
            self._gap = Gap(missing.messages, oldest)
            yield self._gap
        fresh = [each for each in answer.messages if self.group or self._note(each.id)]
        for number, each in enumerate(fresh, start=1):
            if number == len(fresh):
                self.position = answer.position
            gap, self._gap = self._gap, None
            yield self._event(each, gap)
        self.position = answer.position or self.position

    def _note(self, id: bytes) -> bool:
        """Whether the id is new; it is not any more after this."""
        if not id:
            return True
        if id in self._seen:
            return False
        self._seen[id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _event(self, each: ps.ReceivedMessage, gap: Gap | None) -> Event:
        message = each.message
        return Event(
            id=each.id,
            raw_payload=message.payload,
            raw_attributes=dict(message.attributes),
            key=message.ordering_key,
            decompressed_max=self.decompressed_max,
            topic=message.topic,
            time=time_of(each.store_time) if each.HasField("store_time") else None,
            position=self.position,
            gap=gap,
        )


def start_of(core: Core, start: Start | None, after: bytes | None) -> ps.StartAt:
    """The place that the caller means; the client's creation time where he names none."""
    made = ps.StartAt()
    if after is not None:
        if start is not None:
            raise ValueError("start: give start or after, not both")
        if not after:
            raise ValueError("after: the position is empty; an event's `position` is set once the first answer came")
        made.position = after
    elif start is None:
        made.time.FromNanoseconds(core.created_ns)
    elif isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError("start: a datetime needs a time zone, for example datetime.now(timezone.utc)")
        made.time.FromDatetime(start)
    elif start in ("latest", "earliest"):
        made.start = ps.START_LATEST if start == "latest" else ps.START_EARLIEST
    else:
        raise ValueError(f"start: {start!r} is none of 'latest', 'earliest' and a datetime")
    return made


def commit(core: Core, group: str, position: bytes, timeout: float | None) -> Operation[None]:
    """Says that the group is done with a position, and with all before it."""
    request = ps.CommitRequest(namespace=core.name(), group=group, position=position)
    yield from unary(core, methods.COMMIT, request, ps.CommitResponse, timeout)


def to_commit(track: Track) -> bytes:
    """The position to commit now; empty: there is nothing new."""
    if not track.group:
        raise ValueError("commit: the subscription has no group; keep its position instead")
    return track.position if track.position != track.committed else b""


@dataclass(frozen=True)
class SubscribeOptions:
    """What a subscription was asked for."""

    topics: Sequence[str]
    batch: int
    # Seconds without an event after which the iteration ends; None: never.
    idle: float | None
    # Seconds without a connection after which the error is raised; None: goes on for ever.
    patience: float | None
    on_gap: Callable[[Gap], object] | None
    # Of a group: most events that are not committed, 0: 1,000; and the longest time without a commit.
    uncommitted_max: int = 0
    commit_timeout: float | None = None


def subscribe(core: Core, track: Track, options: SubscribeOptions) -> Operation[None]:
    """Emits events, and opens the stream again after the last position wherever it ends."""
    request = ps.SubscribeRequest(
        namespace=core.name(),
        topics=options.topics,
        batch_messages=options.batch,
        group=track.group,
        uncommitted_messages_max=options.uncommitted_max,
    )
    if options.commit_timeout is not None:
        request.commit_timeout.FromNanoseconds(round(options.commit_timeout * 1e9))
    failures, since = 0, core.monotonic()
    quiet_since = core.monotonic()
    while True:
        number = core.balancer.start(core.monotonic(), core.random())
        works: bool | None = None
        try:
            request.start.CopyFrom(track.place())
            yield Open(methods.SUBSCRIBE, request, number)
            outcome = yield Next(_rest_of(core, options.idle, quiet_since))
            while isinstance(outcome, Reply):
                failures, works = 0, True
                for each in track.take(outcome.message):
                    if isinstance(each, Gap):
                        _report(each, core.namespace, options.on_gap)
                        continue
                    yield Emit(each)
                    quiet_since = core.monotonic()
                outcome = yield Next(_rest_of(core, options.idle, quiet_since))
                since = core.monotonic()
            if isinstance(outcome, Failure) and is_of_the_gateway(outcome.error):
                works = False
        finally:
            core.balancer.finish(number, works, core.monotonic())
        if isinstance(outcome, Idle):
            return
        failures += 1
        error = outcome.error if isinstance(outcome, Failure) else None
        wait = _RECONNECT.wait(failures, error.retry_after if error else None, core.random())
        if error is not None:
            error.method, error.address, error.tries = "Subscribe", core.addresses[number], failures
            # One that never stood is given up like a call: its address or namespace may be wrong.
            patience = options.patience if track.stands else core.settings.timeout
            if not may_reopen(error) or (patience is not None and core.monotonic() + wait > since + patience):
                raise error
        if options.idle is not None:
            left = quiet_since + options.idle - core.monotonic()
            if left <= 0:
                return
            wait = min(wait, left)
        _say(error, core.namespace, wait)
        yield Sleep(wait)


def _rest_of(core: Core, idle: float | None, quiet_since: float) -> float | None:
    return None if idle is None else max(0.0, quiet_since + idle - core.monotonic())


def _report(gap: Gap, namespace: str, on_gap: Callable[[Gap], object] | None) -> None:
    if on_gap is not None:
        on_gap(gap)
    else:
        log.warning("subscription to %s: retention removed %s messages before they came", namespace, gap.messages or "some")


def _say(error: PrismError | None, namespace: str, wait: float) -> None:
    why = error.message if error is not None else "the gateway ended the stream"
    log.info("subscription to %s: %s; opened again in %.1f s", namespace, why, wait)
