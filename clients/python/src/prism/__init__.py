"""Prism's Python client.

    from prism import Client

    client = Client(namespace="user-events")
    client.publish({"user_id": 123, "action": "login"})
    for event in client.subscribe():
        print(event["user_id"])

`Client` is for threads, `prism.aio.Client` (here as `AsyncClient`) for asyncio. Errors are in `prism.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Client": "client",
    "Subscription": "client",
    "PrismError": "errors",
    "Dead": "_core.work",
    "Later": "_core.work",
    "Delete": "types",
    "Done": "types",
    "Event": "types",
    "Gap": "types",
    "Item": "types",
    "Message": "types",
    "Namespace": "types",
    "Problem": "types",
    "Published": "types",
    "Put": "types",
    "Settled": "types",
    "Stats": "types",
    "Swap": "types",
    "Token": "types",
    "Work": "types",
    "WriteResult": "types",
}
__all__ = ["AsyncClient", *sorted(_HOME)]

if TYPE_CHECKING:
    from prism import aio as aio
    from prism import errors as errors
    from prism import types as types
    from prism._core.work import Dead as Dead
    from prism._core.work import Later as Later
    from prism.aio import Client as AsyncClient
    from prism.client import Client as Client
    from prism.client import Subscription as Subscription
    from prism.errors import PrismError as PrismError
    from prism.types import Delete as Delete
    from prism.types import Done as Done
    from prism.types import Event as Event
    from prism.types import Gap as Gap
    from prism.types import Item as Item
    from prism.types import Message as Message
    from prism.types import Namespace as Namespace
    from prism.types import Problem as Problem
    from prism.types import Published as Published
    from prism.types import Put as Put
    from prism.types import Settled as Settled
    from prism.types import Stats as Stats
    from prism.types import Swap as Swap
    from prism.types import Token as Token
    from prism.types import Work as Work
    from prism.types import WriteResult as WriteResult


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: users' own generated messages import this package for its options alone."""
    from importlib import import_module

    if name == "AsyncClient":
        return import_module("prism.aio").Client
    if name in ("aio", "errors", "types"):
        return import_module(f"prism.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'prism' has no attribute {name!r}")
    return getattr(import_module(f"prism.{_HOME[name]}"), name)
