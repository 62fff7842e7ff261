"""Queue: sending, receiving, and what becomes of the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from prism._core import methods
from prism._core.call import Core, unary
from prism._core.content import seal
from prism._core.effects import Operation
from prism._core.keyvalue import duration
from prism._core.pubsub import message_of
from prism._core.received import time_of
from prism._core.results import done_of, result_of
from prism._core.status import error_of_status
from prism.queue.v1 import queue_pb2 as qu
from prism.types import Done, Message, Published, Settled, Stats, Token, Work

# The gateway keeps an answer for a second before the deadline, and a poll may last so long.
_WAIT_MAX_S = 50.0


def _fill(core: Core, place: qu.Message, message: Message) -> None:
    if message.topic:
        raise ValueError("topic: a queue has no topics; leave it out")
    payload, attributes = seal(message.data, message.attributes, core.settings.compress_above)
    place.payload, place.ordering_key, place.attempts_max = payload, message.key, message.attempts_max
    place.attributes.update(attributes)
    if message.delay is not None:
        place.delay.CopyFrom(duration(message.delay, "delay"))


def send(core: Core, message: Message, token: Token | None, timeout: float | None) -> Operation[Published]:
    request = qu.SendRequest(namespace=core.name())
    _fill(core, request.message, message)
    used = core.token(request, token)
    answer = yield from unary(core, methods.SEND, request, qu.SendResponse, timeout, used)
    return Published(answer.message_id, result_of(answer.result))


def send_batch(core: Core, messages: Iterable[Any], token: Token | None, timeout: float | None) -> Operation[list[Done]]:
    request = qu.SendBatchRequest(namespace=core.name())
    for each in messages:
        _fill(core, request.messages.add(), message_of(each, "", "", None))
    used = core.token(request, token)
    answer = yield from unary(core, methods.SEND_BATCH, request, qu.SendBatchResponse, timeout, used)
    return [done_of(each, each.message_id) for each in answer.results]


def receive(core: Core, most: int, wait: float, lease: float | None, timeout: float | None) -> Operation[list[Work]]:
    """Leases messages; waits up to `wait` seconds for the first. The timeout counts from there."""
    if not 0 <= wait <= _WAIT_MAX_S:
        raise ValueError(f"wait: {wait} is not from 0 to {_WAIT_MAX_S:.0f} seconds")
    request = qu.ReceiveRequest(namespace=core.name(), messages_max=most, wait=duration(wait, "wait"))
    if lease is not None:
        request.lease.CopyFrom(duration(lease, "lease"))
    used = core.token(request, None)
    total = wait + (core.settings.timeout if timeout is None else timeout)
    answer = yield from unary(core, methods.RECEIVE, request, qu.ReceiveResponse, total, used)
    return [_work_of(core, each) for each in answer.messages]


def _work_of(core: Core, each: qu.ReceivedMessage) -> Work:
    return Work(
        id=each.message_id,
        raw_payload=each.message.payload,
        raw_attributes=dict(each.message.attributes),
        key=each.message.ordering_key,
        decompressed_max=core.decompressed_max(),
        receipt=each.receipt,
        attempt=each.attempt,
        last_failure=each.last_failure,
        sent=time_of(each.send_time) if each.HasField("send_time") else None,
        lease_end=time_of(each.lease_end_time) if each.HasField("lease_end_time") else None,
    )


def _receipts(work: Work | bytes | Sequence[Work | bytes]) -> list[bytes]:
    each = [work] if isinstance(work, Work | bytes) else list(work)
    return [one.receipt if isinstance(one, Work) else one for one in each]


class _HasStatus(Protocol):
    @property
    def status(self) -> status_pb2.Status: ...


def _settled(each: _HasStatus, state: str = "", end: Timestamp | None = None) -> Settled:
    if each.status.code:
        return Settled(error_of_status(each.status))
    return Settled(None, state, None if end is None else time_of(end))


def ack(core: Core, work: Work | bytes | Sequence[Work | bytes], timeout: float | None) -> Operation[list[Settled]]:
    request = qu.AckRequest(namespace=core.name(), receipts=_receipts(work))
    used = core.token(request, None)
    answer = yield from unary(core, methods.ACK, request, qu.AckResponse, timeout, used)
    return [_settled(each) for each in answer.results]


def nack(
    core: Core,
    work: Work | bytes | Sequence[Work | bytes],
    delay: float | None,
    reason: str,
    dead: bool,
    uncounted: bool,
    timeout: float | None,
) -> Operation[list[Settled]]:
    request = qu.NackRequest(namespace=core.name(), receipts=_receipts(work), reason=reason, dead=dead, uncounted=uncounted)
    if delay is not None:
        request.delay.CopyFrom(duration(delay, "delay"))
    used = core.token(request, None)
    answer = yield from unary(core, methods.NACK, request, qu.NackResponse, timeout, used)
    return [_settled(each, _state_name(each.state)) for each in answer.results]


def extend(
    core: Core, work: Work | bytes | Sequence[Work | bytes], lease: float | None, timeout: float | None
) -> Operation[list[Settled]]:
    request = qu.ExtendRequest(namespace=core.name(), receipts=_receipts(work))
    if lease is not None:
        request.lease.CopyFrom(duration(lease, "lease"))
    used = core.token(request, None)
    answer = yield from unary(core, methods.EXTEND, request, qu.ExtendResponse, timeout, used)
    return [_settled(each, end=each.lease_end_time) for each in answer.results]


def _state_name(number: int) -> str:
    descriptor = qu.DESCRIPTOR.enum_types_by_name["State"].values_by_number.get(number)
    return "" if descriptor is None else descriptor.name.removeprefix("STATE_")


def stats(core: Core, timeout: float | None) -> Operation[Stats]:
    request = qu.StatsRequest(namespace=core.name())
    answer = yield from unary(core, methods.STATS, request, qu.StatsResponse, timeout)
    return Stats(
        {_state_name(each.state): each.messages for each in answer.states},
        {
            _state_name(each.state): time_of(each.oldest_send_time)
            for each in answer.states
            if each.HasField("oldest_send_time")
        },
    )
