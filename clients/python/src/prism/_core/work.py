"""What a worker does with a message: which leases to extend, and what an end of its handler means."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from prism.types import Work

# Leases are extended each time that a third of them has passed.
_SHARE = 3
# The gateway cuts reasons there.
_REASON_MAX = 1024


class Dead(Exception):
    """Raised by a handler: the message is put aside as dead, and not tried again."""


class Later(Exception):
    """Raised by a handler: the message comes again after so many seconds."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Verdict:
    """What to tell the queue about a message: done, or given back."""

    done: bool
    reason: str = ""
    delay: float | None = None
    dead: bool = False


def verdict_of(error: BaseException | None) -> Verdict:
    """Returned: done. Raised: the message comes again, later each time; Dead and Later say otherwise."""
    if error is None:
        return Verdict(True)
    reason = str(error) if isinstance(error, Dead | Later) else f"{type(error).__name__}: {error}"
    reason = reason[:_REASON_MAX]
    return Verdict(False, reason, error.seconds if isinstance(error, Later) else None, isinstance(error, Dead))


class Leases:
    """The messages that handlers are busy with, and when each lease is to be extended. Seconds of a steady clock."""

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self._lock = threading.Lock()
        self._due: dict[bytes, float] = {}

    @property
    def pause(self) -> float:
        """How often to look, so that a lease has two more chances when an extension fails."""
        return self.lease / _SHARE / 2

    def begin(self, work: Work, now: float) -> None:
        """A handler has begun."""
        with self._lock:
            self._due[work.receipt] = now + self.lease / _SHARE

    def end(self, work: Work) -> None:
        """A handler has ended."""
        with self._lock:
            self._due.pop(work.receipt, None)

    def due(self, now: float) -> list[bytes]:
        """The receipts to extend now; they are due again a third of a lease later."""
        with self._lock:
            due = [receipt for receipt, at in self._due.items() if at <= now][:1000]
            for receipt in due:
                self._due[receipt] = now + self.lease / _SHARE
            return due

    def lost(self, receipt: bytes) -> None:
        """Another worker has it: nothing is left to extend."""
        with self._lock:
            self._due.pop(receipt, None)
