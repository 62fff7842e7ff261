"""Payloads of messages: what Python objects become, and what they are when they come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from prism._core.compress import compress

TYPE, ENCODING = "content-type", "content-encoding"
JSON, TEXT, PROTOBUF = "application/json", "text/plain; charset=utf-8", "application/protobuf"
# The gateway takes so many attributes.
_ATTRIBUTES_MAX = 64


def to_bytes(data: Any) -> tuple[bytes, str]:
    """The payload for an object, and its content type (empty for bytes, which are passed on as they are)."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), ""
    if isinstance(data, str):
        return data.encode(), TEXT
    if isinstance(data, Message):
        return data.SerializeToString(), f"{PROTOBUF}; type={data.DESCRIPTOR.full_name}"
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(), JSON
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"data: {error}; send bytes, str, a protobuf message, or what JSON can hold (dict, list, str, numbers, None)"
        ) from error


def seal(data: Any, attributes: Mapping[str, str] | None, above: int | None) -> tuple[bytes, dict[str, str]]:
    """Payload and attributes as they are sent: with the content type, compressed where that helps.

    What the caller says counts: his content type stays, and with his content encoding the payload is left alone.
    """
    payload, kind = to_bytes(data)
    sealed = dict(attributes or {})
    if kind:
        sealed.setdefault(TYPE, kind)
    if ENCODING not in sealed and len(sealed) < _ATTRIBUTES_MAX:
        packed = compress(payload, above)
        if packed is not None:
            sealed[ENCODING] = "gzip"
            payload = packed
    return payload, sealed


def to_object(payload: bytes, content_type: str) -> Any:
    """The object for a payload: what JSON holds, str for text, else the bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON or kind.endswith("+json"):
        return json.loads(payload)
    if kind.startswith("text/"):
        return payload.decode()
    return payload
