"""Payloads of messages that came: decompressed on demand, so that one that cannot be read does not stop those after it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from prism._core.compress import decompress
from prism._core.content import ENCODING
from prism.errors import UnusablePayload

if TYPE_CHECKING:
    from prism.types import Received


def _encoding(received: Received) -> str:
    """The encoding to undo; empty where the payload is given as it is."""
    if received.decompressed_max is None:
        return ""
    encoding = received.raw_attributes.get(ENCODING, "").strip().lower()
    return "" if encoding == "identity" else encoding


def payload_of(received: Received) -> bytes:
    """The payload without its content encoding."""
    encoding = _encoding(received)
    if not encoding:
        return received.raw_payload
    if encoding not in ("gzip", "x-gzip"):
        raise UnusablePayload(f"the payload has the content-encoding {encoding!r}; this client decompresses gzip only")
    assert received.decompressed_max is not None
    return decompress(received.raw_payload, received.decompressed_max)


def attributes_of(received: Received) -> dict[str, str]:
    """The attributes without the content encoding, where `payload` is without it, too."""
    attributes = dict(received.raw_attributes)
    if _encoding(received):
        del attributes[ENCODING]
    return attributes


def time_of(stamp: Timestamp) -> datetime:
    """The time in UTC, to the microsecond."""
    return stamp.ToDatetime(timezone.utc)
