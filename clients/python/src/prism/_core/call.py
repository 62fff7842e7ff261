"""One call with all its tries: which gateway, how long, whether again."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from prism._core.addresses import Balancer
from prism._core.effects import Call, Failure, Operation, Reply, Sleep
from prism._core.methods import Method
from prism._core.retry import Backoff, Budget, is_of_the_gateway, leaves_outcome_unknown, may_repeat
from prism._core.tokens import OF_THE_PROCESS, HasToken, TokenMaker, put_into
from prism.errors import PrismError
from prism.types import Settings, Tls, Token

M = TypeVar("M", bound=Message)

# With several addresses a try gets half of the time that is left, and so many seconds at the least: a gateway that does
# not answer at all must leave time for the next.
_TRY_LEAST_S = 1.0
_CALLS = Backoff()


@dataclass
class Core:
    """What all operations of a client share. Clock and chance can be put in by tests."""

    addresses: tuple[str, ...]
    settings: Settings
    namespace: str = ""
    tls: Tls | None = None
    monotonic: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns
    random: Callable[[], float] = random.random
    tokens: TokenMaker = OF_THE_PROCESS
    budget: Budget = field(default_factory=Budget)
    balancer: Balancer = field(init=False)
    # When the client was made; its subscriptions begin there.
    created_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self.balancer = Balancer(len(self.addresses))
        # Stores note times by the millisecond: what is published right away must not lie before.
        self.created_ns = self.now_ns() // 1_000_000 * 1_000_000

    def using(self, namespace: str) -> Core:
        """The same for another namespace: tokens, budget and addresses are shared."""
        view = copy.copy(self)
        view.namespace = namespace
        return view

    def decompressed_max(self) -> int | None:
        """Bytes that a value may have decompressed; None: it is given as it is stored."""
        return self.settings.decompressed_max if self.settings.decompress else None

    def name(self) -> str:
        """The namespace, which must have been given."""
        if not self.namespace:
            raise ValueError('namespace: none is given; write Client(namespace="…") or client.using("…")')
        return self.namespace

    def token(self, request: HasToken, given: Token | None) -> Token:
        """Gives a write its token: the caller's, or one of its own."""
        token = given or self.tokens.new()
        put_into(request, token)
        return token


def unary(
    core: Core, method: Method, request: Message, answer: type[M], timeout: float | None, token: Token | None = None
) -> Operation[M]:
    """Calls until there is an answer, the error is final, or time or tries are used up. Raises PrismError."""
    total = core.settings.timeout if timeout is None else timeout
    if total <= 0:
        raise ValueError(f"timeout: {total} is not a number of seconds above 0")
    deadline = core.monotonic() + total
    core.budget.earn()
    tries = refusals = 0
    unknown = False
    while True:
        number = core.balancer.start(core.monotonic(), core.random())
        works: bool | None = None
        try:
            left = deadline - core.monotonic()
            outcome = yield Call(method, request, number, _time_of_try(core, method, left))
            works = True if isinstance(outcome, Reply) else None
            if isinstance(outcome, Failure):
                works = False if is_of_the_gateway(outcome.error) else outcome.error.is_from_gateway or None
        finally:
            core.balancer.finish(number, works, core.monotonic())
        tries += 1
        if isinstance(outcome, Reply):
            assert isinstance(outcome.message, answer)
            return outcome.message
        assert isinstance(outcome, Failure)
        error = outcome.error
        unknown = unknown or (method.writes and leaves_outcome_unknown(error))
        refusals += error.is_from_gateway
        wait = _wait(core, error, tries)
        again = (
            may_repeat(error, method.repeatable)
            and core.monotonic() + wait < deadline
            and (not error.is_from_gateway or (refusals < core.settings.tries and core.budget.spend()))
        )
        if not again:
            raise _explain(error, core, method, number, tries, unknown, token)
        yield Sleep(wait)


def _time_of_try(core: Core, method: Method, left: float) -> float:
    """Seconds for the try that begins now."""
    left = max(left, 0.001)
    if len(core.addresses) == 1 or not method.repeatable:
        return left
    return max(left / 2, min(left, _TRY_LEAST_S))


def _wait(core: Core, error: PrismError, tries: int) -> float:
    """Seconds before the next try. What a gateway asks for is for itself: another one may be asked sooner."""
    asked = error.retry_after if len(core.addresses) == 1 else None
    return _CALLS.wait(tries, asked, core.random())


def _explain(
    error: PrismError, core: Core, method: Method, number: int, tries: int, unknown: bool, token: Token | None
) -> PrismError:
    """Adds to an error what the call knows of it."""
    error.method, error.address, error.tries = method.name, core.addresses[number], tries
    error.outcome_unknown, error.token = unknown, token
    return error
