"""When a failed call is tried again, and after how long."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from prism.errors import ConnectionLost, DeadlineExceeded, PrismError, Repeat

# Statuses without a reason by which the connection, or a proxy on the way, ends a stream that may be opened again.
_BROKEN_STREAM = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED"}
# Statuses with which a gateway refuses for a while, where it says for how long.
_FOR_A_WHILE = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
# Statuses after which a write without a reason may have been done.
_MAY_BE_DONE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"}


@dataclass(frozen=True)
class Backoff:
    """Full jitter: a wait by chance between 0 and a limit that doubles with each failure. Seconds."""

    first: float = 0.02
    most: float = 2.0

    def wait(self, failures: int, retry_after: float | None, random: float) -> float:
        """Seconds to wait after so many failures (from 1); `random` is from 0 to 1.

        What the gateway asks for is kept, and up to a quarter is added, so that many clients do not come back at once.
        """
        if retry_after is not None:
            return retry_after * (1 + random / 4)
        return float(min(self.most, self.first * 2 ** min(failures - 1, 30)) * random)


def may_repeat(error: PrismError, repeatable: bool) -> bool:
    """Whether the same call may be sent again. `repeatable`: a read, or a write under its token."""
    if error.repeat is Repeat.NOTHING_DONE:
        return True
    if error.repeat is Repeat.SAME_TOKEN:
        return repeatable
    # What this version has no type for: only if the gateway says when.
    known = type(error) is not PrismError
    return repeatable and not known and error.code in _FOR_A_WHILE and error.retry_after is not None


def may_reopen(error: PrismError) -> bool:
    """Whether a stream that ended so may be opened again where it stopped."""
    return may_repeat(error, True) or (not error.is_from_gateway and error.code in _BROKEN_STREAM)


def leaves_outcome_unknown(error: PrismError) -> bool:
    """Whether a write that failed so may have been done nevertheless."""
    if error.reason:
        return error.repeat is Repeat.SAME_TOKEN
    return error.code in _MAY_BE_DONE


def is_of_the_gateway(error: PrismError) -> bool:
    """Whether the address had better rest: it cannot be reached, does not answer, or refuses for now."""
    return isinstance(error, ConnectionLost | DeadlineExceeded) or error.repeat is Repeat.NOTHING_DONE


class Budget:
    """Bounds repeats to a share of the calls, so that a gateway in trouble is not buried by them.

    Each call puts a tenth of a repeat in, each repeat takes one out; ten are there at the beginning and at the most.
    Only repeats of what a gateway refused count: who cannot connect burdens nobody.
    """

    SHARE, MOST = 0.1, 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = self.MOST

    def earn(self) -> None:
        """Counts a call."""
        with self._lock:
            self._left = min(self.MOST, self._left + self.SHARE)

    def spend(self) -> bool:
        """Takes a repeat, if one is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
