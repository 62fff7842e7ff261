"""Operations on grpcio's asyncio calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from prism._channels import OPTIONS, credentials_of, error_from
from prism._core.effects import Call, Effect, Emit, End, Failure, Idle, Next, Open, Operation, Outcome, Reply, Sleep
from prism._core.methods import Method
from prism.errors import PrismError
from prism.types import Tls

T = TypeVar("T")


class Channels:
    """A channel for each address, made when it is needed, in the event loop that needs it."""

    def __init__(self, addresses: tuple[str, ...], tls: Tls | None = None) -> None:
        self._addresses = addresses
        self._credentials = credentials_of(tls)
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._calls: dict[tuple[int, str], Any] = {}
        self._closed = False

    def unary(self, number: int, method: Method) -> Any:
        """What calls a method at an address."""
        return self._calls.get((number, method.path)) or self._make(number, method, "unary_unary")

    def stream(self, number: int, method: Method) -> Any:
        """What opens a stream at an address."""
        return self._calls.get((number, method.path)) or self._make(number, method, "unary_stream")

    def _make(self, number: int, method: Method, shape: str) -> Any:
        if self._closed:
            raise ValueError("the client is closed; make another one")
        channel = self._channels.get(number)
        if channel is None:
            channel = self._channels[number] = self._open(self._addresses[number])
        call = getattr(channel, shape)(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        self._calls[number, method.path] = call
        return call

    def _open(self, address: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, OPTIONS)

    async def close(self) -> None:
        """Ends all calls and connections."""
        self._closed = True
        self._calls.clear()
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()


class Runner:
    """Runs one operation; another task may stop it."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._stream: Any = None
        self._stopped = False
        self._asleep: asyncio.Event | None = None

    async def run(self, operation: Operation[T]) -> T:
        """The operation's result."""
        outcome: Outcome = None
        try:
            while True:
                outcome = await self._do(operation.send(outcome))
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            operation.close()

    async def iterate(self, operation: Operation[None]) -> AsyncIterator[Any]:
        """What the operation emits."""
        outcome: Outcome = None
        try:
            while not self._stopped:
                try:
                    effect = operation.send(outcome)
                except StopIteration:
                    return
                if isinstance(effect, Emit):
                    outcome = None
                    yield effect.value
                else:
                    outcome = await self._do(effect)
        except PrismError:
            if not self._stopped:
                raise
        finally:
            operation.close()
            self._cancel()

    def stop(self) -> None:
        """Ends the iteration."""
        self._stopped = True
        self._cancel()
        if self._asleep is not None:
            self._asleep.set()

    def _cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    async def _do(self, effect: Effect) -> Outcome:
        if isinstance(effect, Call):
            return await self._call(effect)
        if isinstance(effect, Next):
            return await self._next(effect.timeout)
        if isinstance(effect, Open):
            self._cancel()
            self._stream = self._channels.stream(effect.address, effect.method)(effect.request)
            return None
        assert isinstance(effect, Sleep)
        self._asleep = asyncio.Event()
        if not self._stopped:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asleep.wait(), effect.seconds)
        return None

    async def _call(self, effect: Call) -> Outcome:
        try:
            return Reply(await self._channels.unary(effect.address, effect.method)(effect.request, timeout=effect.timeout))
        except grpc.aio.AioRpcError as error:
            return Failure(error_from(error))

    async def _next(self, timeout: float | None) -> Outcome:
        try:
            message = await asyncio.wait_for(self._stream.read(), timeout)
        except asyncio.TimeoutError:
            self._cancel()
            return Idle()
        except grpc.aio.AioRpcError as error:
            return Failure(error_from(error))
        except asyncio.CancelledError:
            # grpcio raises it also where the stream was cancelled by stop.
            if not self._stopped:
                raise
            return End()
        return End() if message is grpc.aio.EOF else Reply(message)
