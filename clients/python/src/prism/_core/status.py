"""Errors from what came: a gRPC status with its details, or a result within an answer."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from prism import errors
from prism.admin.v1 import namespaces_pb2
from prism.errors import PrismError
from prism.types import Problem

# The names of gRPC's codes, by number.
CODES = tuple(code.name for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0])))

# Types for a status without a reason: it comes from the connection, from this library, or is explained by its sentence.
_WITHOUT_REASON: dict[str, type[PrismError]] = {
    "UNAVAILABLE": errors.ConnectionLost,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
}


def error_of(code: str, message: str, details: bytes | None) -> PrismError:
    """The error for a status as it came; `details` is the metadata `grpc-status-details-bin`."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(details or b"")
    except DecodeError:
        status.Clear()
    status.message = status.message or message
    return error_of_status(status, code)


def error_of_status(status: status_pb2.Status, code: str = "") -> PrismError:
    """The error for a status message, as a result within an answer carries it."""
    code = code or (CODES[status.code] if 0 <= status.code < len(CODES) else "UNKNOWN")
    info, retry, request = error_details_pb2.ErrorInfo(), None, error_details_pb2.RequestInfo()
    field, problems = "", []
    for detail in status.details:
        retry_info, bad, problem = error_details_pb2.RetryInfo(), error_details_pb2.BadRequest(), namespaces_pb2.Problem()
        try:
            if detail.Unpack(retry_info):
                retry = retry_info.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(bad):
                field = field or next((violation.field for violation in bad.field_violations), "")
            elif detail.Unpack(problem):
                problems.append(Problem(problem.field, problem.description, problem.suggestion, problem.line))
            elif not detail.Unpack(info):
                detail.Unpack(request)
        except DecodeError:
            continue
    kind = errors.BY_REASON.get(info.reason) if info.reason else _WITHOUT_REASON.get(code)
    return (kind or PrismError)(
        status.message,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        field=field,
        retry_after=retry,
        request_id=request.request_id,
        problems=tuple(problems),
    )
