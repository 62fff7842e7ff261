"""What an operation wants from its transport, and what it gets back.

An operation is a generator. It yields effects, is sent the outcome of each, and returns its result. So it knows neither
sockets nor clocks, one operation serves threads and asyncio alike, and a test can play the gateway.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from prism._core.methods import Method
from prism.errors import PrismError

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One try of a call at the address of that number. The outcome: Reply or Failure."""

    method: Method
    request: Message
    address: int
    timeout: float


@dataclass(frozen=True)
class Open:
    """Opens a stream; it takes the place of the one before. The outcome: None; a failure shows at the first Next."""

    method: Method
    request: Message
    address: int


@dataclass(frozen=True)
class Next:
    """The next message of the stream. The outcome: Reply, Failure, End, or Idle after `timeout` seconds."""

    timeout: float | None = None


@dataclass(frozen=True)
class Sleep:
    """Waits. The outcome: None."""

    seconds: float


@dataclass(frozen=True)
class Emit:
    """Hands something out to whoever iterates. The outcome: None."""

    value: Any


@dataclass(frozen=True)
class Reply:
    """A message that came."""

    message: Any


@dataclass(frozen=True)
class Failure:
    """A call or stream that ended with an error."""

    error: PrismError


@dataclass(frozen=True)
class End:
    """The stream ended, as streams do that have an end."""


@dataclass(frozen=True)
class Idle:
    """Nothing came in time; the stream is closed."""


Effect = Call | Open | Next | Sleep | Emit
Outcome = Reply | Failure | End | Idle | None
# What yields effects and returns a T.
Operation = Generator[Effect, Outcome, T]
