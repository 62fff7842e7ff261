"""What both transports tell grpcio: the options of channels, and the form of its errors."""

from __future__ import annotations

from typing import Any

import grpc

from prism._core.status import CODES, error_of
from prism.errors import PrismError
from prism.types import Tls

# A value of 16 MiB with its id and key; the gateway's limits.message_bytes_max.
_MESSAGE_BYTES_MAX = (17 << 20) + 4096

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # The gateway says which field is too large; the library would only say that a message is.
    ("grpc.max_send_message_length", -1),
    # A gateway that restarts is there again within a second; grpcio would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A subscription may be quiet for long: pings find out that the other side is gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The retries are ours: they know which calls may be repeated.
    ("grpc.enable_retries", 0),
    # A client has its own connections, which end with it.
    ("grpc.use_local_subchannel_pool", 1),
]


def credentials_of(tls: Tls | None) -> grpc.ChannelCredentials | None:
    """What grpcio needs for TLS; None: without TLS."""
    return None if tls is None else grpc.ssl_channel_credentials(tls.ca, tls.cert_key, tls.cert)


_DETAILS = "grpc-status-details-bin"


def error_from(error: Any) -> PrismError:
    """The error for grpcio's, of either transport."""
    number = error.code().value[0] if error.code() is not None else 2
    details: bytes | None = None
    for name, value in error.trailing_metadata() or ():
        if name == _DETAILS:
            details = value if isinstance(value, bytes) else value.encode("latin-1")
    return error_of(CODES[number] if 0 <= number < len(CODES) else "UNKNOWN", error.details() or "", details)
