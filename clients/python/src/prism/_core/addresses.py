"""Several gateways: which of them the next call goes to."""

from __future__ import annotations

import threading
from dataclasses import dataclass

DEFAULT_PORT = 8980
ENCRYPTED = "https://"
DEFAULT_SERVER = f"127.0.0.1:{DEFAULT_PORT}"
# A gateway that failed rests so long, doubled with each failure in a row, up to so long. Seconds.
REST_FIRST, REST_MOST = 1.0, 30.0


def parse(text: str) -> tuple[str, ...]:
    """The addresses in `a:8980,b:8980`; a port that is missing is 8980, a scheme before an address is left out."""
    addresses: list[str] = []
    for part in text.split(","):
        address = part.strip().removeprefix("http://").removeprefix(ENCRYPTED).rstrip("/")
        host, colon, port = address.rpartition(":")
        if not colon or address.endswith("]"):
            host, port = address, str(DEFAULT_PORT)
        if "://" in address or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"server: {part.strip()!r} is not HOST:PORT; write `a:8980`, or `a:8980,b:8980` for several")
        if ":" in host and not host.startswith("["):
            raise ValueError(f"server: write the IPv6 address in {part.strip()!r} in brackets, as in `[::1]:8980`")
        if f"{host}:{port}" not in addresses:
            addresses.append(f"{host}:{port}")
    return tuple(addresses)


def is_encrypted(text: str) -> bool:
    """Whether the addresses have `https://` before them: all of them, or none."""
    encrypted = [part.strip().startswith(ENCRYPTED) for part in text.split(",")]
    if any(encrypted) and not all(encrypted):
        raise ValueError(f"server: write https:// before each address of {text!r}, or before none")
    return all(encrypted)


@dataclass
class _State:
    outstanding: int = 0
    failures: int = 0
    rests_until: float = 0.0


class Balancer:
    """Chooses of two addresses by chance the one with fewer calls under way; one that failed rests for a while."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._states = [_State() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._states)

    def start(self, now: float, random: float) -> int:
        """The number of an address, for a call that begins. `random` is from 0 up to, not including, 1."""
        with self._lock:
            numbers = range(len(self._states))
            awake = [number for number in numbers if self._states[number].rests_until <= now]
            if awake:
                at = int(random * len(awake))
                pair = {awake[at], awake[(at + 1) % len(awake)]}
                chosen = min(pair, key=lambda number: (self._states[number].outstanding, number != awake[at]))
            else:
                chosen = min(numbers, key=lambda number: self._states[number].rests_until)
            self._states[chosen].outstanding += 1
            return chosen

    def finish(self, number: int, works: bool | None, now: float) -> None:
        """Notes that a call has ended. `works`: whether the gateway does; None where that did not show."""
        with self._lock:
            state = self._states[number]
            state.outstanding -= 1
            if works:
                state.failures, state.rests_until = 0, 0.0
            elif works is False:
                state.rests_until = now + min(REST_MOST, REST_FIRST * 2 ** min(state.failures, 10))
                state.failures += 1
