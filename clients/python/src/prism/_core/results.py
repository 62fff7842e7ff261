"""Results of writes, from the messages that carry them."""

from __future__ import annotations

from typing import Protocol

from google.rpc import status_pb2

from prism._core.status import error_of_status
from prism.common.v1 import common_pb2
from prism.types import Done, WriteResult

_DURABILITIES = ("", "best-effort", "eventual", "strong")


class HasResult(Protocol):
    """One result of a batch."""

    @property
    def status(self) -> status_pb2.Status: ...
    @property
    def result(self) -> common_pb2.WriteResult: ...


def result_of(message: common_pb2.WriteResult) -> WriteResult:
    """What an acknowledgement promises."""
    number = int(message.durability)
    name = _DURABILITIES[number] if 0 <= number < len(_DURABILITIES) else f"durability {number}"
    return WriteResult(name, message.lane, message.lsn, message.applied)


def done_of(each: HasResult, id: bytes = b"") -> Done:
    """What became of one part of a batch."""
    if each.status.code:
        return Done(error_of_status(each.status), None)
    return Done(None, result_of(each.result), id)
