"""What the client's tests share: real gateways, and one face for the client of threads and that of asyncio.

PRISM_BINARY says where the gateway is; without it, it is what `cargo build` made.
"""

import asyncio
import inspect
import itertools
import os
import sys
import tempfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent.parent
sys.path[:0] = [str(PACKAGE / "src"), str(ROOT / "clients" / "conformance")]

from server import Server  # noqa: E402

from prism import Client, aio  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("PRISM_BINARY") or TARGET / "debug" / "prism")
# Enough for a debug build on a busy machine; no test waits for it unless something is wrong.
PATIENCE_S = 60.0
# What is tested here is not the power cut; temporary folders may lie in memory.
UNSAFE = ("--set", "wal.allow_unsafe_filesystem=true")
STORES = {"memory": "best-effort", "sqlite": "strong"}

# The libraries would send even loopback traffic to a proxy that the machine may have set.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
    """Leaves out asyncio on the store in memory: threads on either store, and asyncio on SQLite, show what there is."""

    def is_left_out(item):
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return (parameters.get("connect"), parameters.get("store")) == ("asyncio", "memory")

    items[:] = [item for item in items if not is_left_out(item)]


def fresh(name):
    """A namespace that no other test uses."""
    return f"{name}-{next(_numbers)}"


def yaml(name, api, durability, more=""):
    needs = f"durability: {durability}, max_message_size: 8MB{more}"
    return f"namespace: {name}\nteam: clients\nclient_api: {api}\nneeds: {{{needs}}}\n"


def start(folder, *flags, **more):
    """A gateway in a folder of its own."""
    if not BINARY.is_file():
        pytest.fail(f"{BINARY} is not there: `cargo build -p prism-core` makes it, or set PRISM_BINARY")
    return Server(BINARY, Path(folder), *flags, *UNSAFE, **more)


@pytest.fixture(scope="session")
def gateways():
    """A gateway for each store, shared by all tests that do not hurt it; each is started when it is needed."""
    running = {}
    with tempfile.TemporaryDirectory(prefix="prism-client-") as folder:

        def get(store):
            if store not in running:
                place = Path(folder) / store
                place.mkdir()
                running[store] = start(place, "--embedded", store, "--shards", "2")
                running[store].start()
            return running[store]

        try:
            yield get
            for server in running.values():
                server.stop()
        finally:
            for server in running.values():
                server.kill()


class Blocking:
    """The client for asyncio, called like that for threads, so that one test shows both."""

    def __init__(self, loop, target):
        self._loop, self._target = loop, target

    def __getattr__(self, name):
        found = getattr(self._target, name)
        if isinstance(found, aio.Admin):
            return Blocking(self._loop, found)
        return self._method(found) if callable(found) else found

    def _method(self, method):
        def call(*arguments, **named):
            if method.__name__ == "work":
                handler, *arguments = arguments

                async def handle(work):
                    return handler(work)

                arguments = [handle, *arguments]

            async def run():
                result = method(*arguments, **named)
                return await result if inspect.isawaitable(result) else result

            return self._wrap(self._loop.run_until_complete(run()))

        return call

    def _wrap(self, result):
        if hasattr(result, "__aiter__"):
            return Iteration(self._loop, result)
        return Blocking(self._loop, result) if isinstance(result, aio.Client) else result


class Iteration(Blocking):
    """An iteration of asyncio, in a plain `for` loop."""

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self._loop.run_until_complete(self._target.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


@pytest.fixture(params=["threads", "asyncio"])
def connect(request):
    """Makes clients of one kind, with the constructor's arguments."""
    made = []
    if request.param == "threads":

        def make(*arguments, **named):
            made.append(Client(*arguments, **{"timeout": PATIENCE_S, **named}))
            return made[-1]

        yield make
        for client in made:
            client.close()
        return
    loop = asyncio.new_event_loop()

    def make_one(*arguments, **named):
        made.append(Blocking(loop, aio.Client(*arguments, **{"timeout": PATIENCE_S, **named})))
        return made[-1]

    yield make_one
    for client in made:
        client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture(params=STORES)
def store(request):
    return request.param


@pytest.fixture
def place(connect, gateways, store):
    """Makes a namespace of an API, and a client for it."""

    def make(api, more="", **named):
        name = fresh(api)
        client = connect(gateways(store).address, namespace=name, **named)
        client.admin.create(yaml(name, api, STORES[store], more))
        return client

    return make
