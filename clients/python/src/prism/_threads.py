"""Operations on grpcio's blocking calls."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

from prism._channels import OPTIONS, credentials_of, error_from
from prism._core.effects import Call, Effect, Emit, End, Failure, Idle, Next, Open, Operation, Outcome, Reply, Sleep
from prism._core.methods import Method
from prism.errors import PrismError
from prism.types import Tls

T = TypeVar("T")


class Channels:
    """A channel for each address, made when it is needed. Threads may share it."""

    def __init__(self, addresses: tuple[str, ...], tls: Tls | None = None) -> None:
        self._addresses = addresses
        self._credentials = credentials_of(tls)
        self._lock = threading.Lock()
        self._channels: dict[int, grpc.Channel] = {}
        self._calls: dict[tuple[int, str], Any] = {}
        self._closed = False

    def unary(self, number: int, method: Method) -> Any:
        """What calls a method at an address."""
        call = self._calls.get((number, method.path))
        return call or self._make(number, method, "unary_unary")

    def stream(self, number: int, method: Method) -> Any:
        """What opens a stream at an address."""
        call = self._calls.get((number, method.path))
        return call or self._make(number, method, "unary_stream")

    def _make(self, number: int, method: Method, shape: str) -> Any:
        with self._lock:
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

    def _open(self, address: str) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(address, OPTIONS)
        return grpc.secure_channel(address, self._credentials, OPTIONS)

    def close(self) -> None:
        """Ends all calls and connections."""
        with self._lock:
            self._closed = True
            self._calls.clear()
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()


class Runner:
    """Runs one operation; another thread may stop it."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._stream: Any = None
        self._stopped = threading.Event()

    def run(self, operation: Operation[T]) -> T:
        """The operation's result."""
        outcome: Outcome = None
        try:
            while True:
                outcome = self._do(operation.send(outcome))
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            operation.close()

    def iterate(self, operation: Operation[None]) -> Iterator[Any]:
        """What the operation emits."""
        outcome: Outcome = None
        try:
            while not self._stopped.is_set():
                effect = operation.send(outcome)
                if isinstance(effect, Emit):
                    outcome = None
                    yield effect.value
                else:
                    outcome = self._do(effect)
        except StopIteration:
            return
        except PrismError:
            if not self._stopped.is_set():
                raise
        finally:
            operation.close()
            self._cancel()

    def stop(self) -> None:
        """Ends the iteration, from any thread."""
        self._stopped.set()
        self._cancel()

    def _cancel(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _do(self, effect: Effect) -> Outcome:
        if isinstance(effect, Call):
            return self._call(effect)
        if isinstance(effect, Next):
            return self._next(effect.timeout)
        if isinstance(effect, Open):
            self._cancel()
            self._stream = self._channels.stream(effect.address, effect.method)(effect.request)
            if self._stopped.is_set():
                self._cancel()
            return None
        assert isinstance(effect, Sleep)
        self._stopped.wait(effect.seconds)
        return None

    def _call(self, effect: Call) -> Outcome:
        try:
            return Reply(self._channels.unary(effect.address, effect.method)(effect.request, timeout=effect.timeout))
        except grpc.RpcError as error:
            return Failure(error_from(error))

    def _next(self, timeout: float | None) -> Outcome:
        stream = self._stream
        ran_out = threading.Event()
        with contextlib.ExitStack() as cleanup:
            if timeout is not None:

                def give_up() -> None:
                    ran_out.set()
                    stream.cancel()

                timer = threading.Timer(timeout, give_up)
                timer.daemon = True
                timer.start()
                cleanup.callback(timer.cancel)
            try:
                return Reply(next(stream))
            except StopIteration:
                return End()
            except grpc.RpcError as error:
                return Idle() if ran_out.is_set() else Failure(error_from(error))
