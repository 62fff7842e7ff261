"""Idempotency tokens: one for each write, the same at every try, so that a repeat has no second effect."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from prism.common.v1 import common_pb2
from prism.types import Token

# Between two tokens of one process there is at least this much time.
_STEP_NS = 1_000


class HasToken(Protocol):
    """A request with a place for a token."""

    @property
    def idempotency_token(self) -> common_pb2.IdempotencyToken: ...


class TokenMaker:
    """Makes tokens of random bytes and the time.

    The last write to an item wins by the token's time. So the times of one process only grow, also where its clock is
    set back: the later of two writes of a program wins.
    """

    def __init__(
        self,
        now_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._now_ns, self._random_bytes = now_ns, random_bytes
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> Token:
        """A token that nobody has used."""
        with self._lock:
            self._last = max(self._now_ns(), self._last + _STEP_NS)
            return Token(self._random_bytes(16), self._last)


# One for the process: its clients write the same items.
OF_THE_PROCESS = TokenMaker()


def put_into(request: HasToken, token: Token) -> None:
    """Sets the token of a request."""
    place = request.idempotency_token
    place.token = token.value
    place.generation_time.FromNanoseconds(token.time_ns)


def derived(token: Token, number: int) -> Token:
    """Another token that follows from this one: the same each time, and unlike any other."""
    return Token(hashlib.sha256(token.value + number.to_bytes(4, "big")).digest()[:16], token.time_ns)
