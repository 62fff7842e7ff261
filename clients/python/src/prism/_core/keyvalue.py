"""KeyValue: requests from arguments, values from answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from google.protobuf.duration_pb2 import Duration

from prism._core import methods
from prism._core.call import Core, unary
from prism._core.compress import compress, decompress
from prism._core.effects import Emit, End, Failure, Next, Open, Operation, Reply, Sleep
from prism._core.results import done_of, result_of
from prism._core.retry import Backoff, is_of_the_gateway, may_reopen
from prism._core.tokens import derived, put_into
from prism.errors import UnusablePayload
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from prism.types import Bytes, Delete, Done, Item, Put, Swap, Token, WriteResult

# Names of the ways to compress, by their number.
COMPRESSIONS = ("", "gzip", "zstd", "lz4", "snappy")
# How often `modify` reads and swaps again, when others change the item meanwhile.
_MODIFY_TRIES = 100
_SCAN = Backoff(first=0.05, most=2.0)


def to_bytes(value: Bytes, what: str) -> bytes:
    """Bytes for a key or value; str becomes UTF-8."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{what}: {type(value).__name__} is neither bytes nor str; for an object, json.dumps makes a str")


def duration(seconds: float, what: str) -> Duration:
    """A length of time for a request."""
    if not 0 <= seconds < 1e10:
        raise ValueError(f"{what}: {seconds} is not a number of seconds from 0")
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def value_of(item: Item) -> bytes:
    """The value of an item, decompressed."""
    if not item.compression or item.decompressed_max is None:
        return item.raw_value
    if item.compression != "gzip":
        raise UnusablePayload(
            f"the value of {item.key!r} is compressed with {item.compression}; this client decompresses gzip only"
        )
    return decompress(item.raw_value, item.decompressed_max)


def _item_of(core: Core, message: kv.Item) -> Item:
    number = int(message.compression)
    return Item(
        message.key,
        message.value,
        message.ttl.ToNanoseconds() / 1e9 if message.HasField("ttl") else None,
        message.version,
        COMPRESSIONS[number] if 0 <= number < len(COMPRESSIONS) else f"compression {number}",
        core.decompressed_max(),
    )


def _fill(core: Core, place: kv.Item, key: bytes, value: Bytes, ttl: float | None) -> None:
    raw = to_bytes(value, "value")
    packed = compress(raw, core.settings.compress_above)
    place.key, place.value = key, raw if packed is None else packed
    if packed is not None:
        place.compression = kv.COMPRESSION_GZIP
    if ttl is not None:
        place.ttl.CopyFrom(duration(ttl, "ttl"))


def _fill_all(core: Core, places: Callable[[], kv.Item], items: Mapping[Bytes, Bytes], ttl: float | None) -> None:
    if not isinstance(items, Mapping):
        raise TypeError(f"items: {type(items).__name__} is no mapping of keys to values")
    for key, value in items.items():
        _fill(core, places(), to_bytes(key, "key"), value, ttl)


def _predicate(keys: Sequence[Bytes], start: Bytes, end: Bytes) -> kv.Predicate | None:
    """Which items are meant; None: all."""
    first, last = to_bytes(start, "start"), to_bytes(end, "end")
    if keys:
        if first or last:
            raise ValueError("keys: give keys, or a range by start and end, not both")
        return kv.Predicate(keys=kv.KeySet(keys=[to_bytes(key, "key") for key in keys]))
    if first or last:
        return kv.Predicate(range=kv.KeyRange(start=first, end=last))
    return None


def _doomed(keys: Sequence[Bytes], start: Bytes, end: Bytes, everything: bool) -> kv.Predicate | None:
    """Which items a delete means. All of them only where that is said: a list of keys that is empty by chance is not it."""
    predicate = _predicate(keys, start, end)
    if (predicate is None) != everything:
        raise ValueError("delete: give keys, or a range by start and end, or all=True for all items of the id")
    return predicate


def put(
    core: Core, id: str, items: Mapping[Bytes, Bytes], ttl: float | None, token: Token | None, timeout: float | None
) -> Operation[WriteResult]:
    request = kv.PutRequest(namespace=core.name(), id=id)
    _fill_all(core, request.items.add, items, ttl)
    used = core.token(request, token)
    return result_of((yield from unary(core, methods.PUT, request, kv.PutResponse, timeout, used)).result)


def items(
    core: Core,
    id: str,
    keys: Sequence[Bytes],
    start: Bytes,
    end: Bytes,
    limit: int | None,
    timeout: float | None,
) -> Operation[None]:
    """Emits the items of an id in key order, page by page."""
    request = kv.GetRequest(namespace=core.name(), id=id, predicate=_predicate(keys, start, end))
    left = limit
    while left is None or left > 0:
        if left is not None:
            request.selection.item_limit = min(left, 0xFFFF_FFFF)
        page = yield from unary(core, methods.GET, request, kv.GetResponse, timeout)
        for item in page.items:
            yield Emit(_item_of(core, item))
        if left is not None:
            left -= len(page.items)
        if not page.next_page_token:
            return
        request.selection.page_token = page.next_page_token


def get_item(core: Core, id: str, key: Bytes, timeout: float | None) -> Operation[Item | None]:
    request = kv.GetRequest(namespace=core.name(), id=id, predicate=_predicate([key], b"", b""))
    page = yield from unary(core, methods.GET, request, kv.GetResponse, timeout)
    return _item_of(core, page.items[0]) if page.items else None


def delete(
    core: Core,
    id: str,
    keys: Sequence[Bytes],
    start: Bytes,
    end: Bytes,
    everything: bool,
    token: Token | None,
    timeout: float | None,
) -> Operation[WriteResult]:
    request = kv.DeleteRequest(namespace=core.name(), id=id, predicate=_doomed(keys, start, end, everything))
    used = core.token(request, token)
    return result_of((yield from unary(core, methods.DELETE, request, kv.DeleteResponse, timeout, used)).result)


def mutate(
    core: Core, mutations: Iterable[Put | Delete], token: Token | None, timeout: float | None
) -> Operation[list[Done]]:
    request = kv.MutateRequest(namespace=core.name())
    for mutation in mutations:
        place = request.mutations.add(id=mutation.id)
        if isinstance(mutation, Put):
            place.put.SetInParent()
            _fill_all(core, place.put.items.add, mutation.items, mutation.ttl)
        else:
            predicate = _doomed(mutation.keys, mutation.start, mutation.end, mutation.all)
            place.delete.CopyFrom(kv.DeleteItems(predicate=predicate))
    used = core.token(request, token)
    answer = yield from unary(core, methods.MUTATE, request, kv.MutateResponse, timeout, used)
    return [done_of(each) for each in answer.results]


def compare_and_swap(
    core: Core,
    id: str,
    key: Bytes,
    value: Bytes | None,
    absent: bool,
    expect: Bytes | None,
    version: bytes | None,
    ttl: float | None,
    token: Token | None,
    timeout: float | None,
) -> Operation[Swap]:
    """Swaps if the expectation holds. `value` None deletes the item.

    The gateway compares an expected value with what is stored. Where that holds the same value compressed, the swap is
    made again with the stored form as the expectation.
    """
    if (absent, expect is not None, version is not None).count(True) != 1:
        raise ValueError("expect: give one of absent=True, expect=VALUE and version=VERSION")
    request = kv.CompareAndSwapRequest(namespace=core.name(), id=id, key=to_bytes(key, "key"))
    if value is not None:
        _fill(core, request.item, b"", value, ttl)
    if absent:
        request.absent.SetInParent()
    elif version is not None:
        request.version = version
    elif expect is not None:
        request.value = to_bytes(expect, "expect")
    used = core.token(request, token)
    answer = yield from unary(core, methods.SWAP, request, kv.CompareAndSwapResponse, timeout, used)
    swap = _swap_of(core, answer)
    tries = 0
    while not swap and expect is not None and _is_compressed_form(swap.current, to_bytes(expect, "expect")):
        assert swap.current is not None
        request.value = swap.current.raw_value
        # A token that follows from the first, so that a repeat of all this is a repeat at the gateway, too.
        tries += 1
        put_into(request, derived(used, tries))
        answer = yield from unary(core, methods.SWAP, request, kv.CompareAndSwapResponse, timeout, used)
        swap = _swap_of(core, answer)
    return swap


def _swap_of(core: Core, answer: kv.CompareAndSwapResponse) -> Swap:
    current = _item_of(core, answer.current) if answer.HasField("current") else None
    return Swap(answer.swapped, current, result_of(answer.result))


def _is_compressed_form(item: Item | None, value: bytes) -> bool:
    """Whether the item holds this value, compressed."""
    if item is None or item.compression != "gzip":
        return False
    try:
        return decompress(item.raw_value, len(value)) == value
    except UnusablePayload:
        return False


def modify(
    core: Core,
    id: str,
    key: Bytes,
    change: Callable[[bytes | None], Bytes | None],
    ttl: float | None,
    timeout: float | None,
) -> Operation[bytes | None]:
    """Reads, lets the caller make a new value of the old one, and swaps; again from the start if others were faster."""
    item = yield from get_item(core, id, key, timeout)
    wait = Backoff(first=0.002, most=0.1)
    for failures in range(1, _MODIFY_TRIES + 1):
        new = change(None if item is None else item.value)
        if item is None and new is None:
            return None
        version = None if item is None else item.version
        swap = yield from compare_and_swap(core, id, key, new, item is None, None, version, ttl, None, timeout)
        if swap:
            return None if new is None else to_bytes(new, "value")
        item = swap.current
        if item is not None and not item.version:
            item = yield from get_item(core, id, key, timeout)
        yield Sleep(wait.wait(failures, None, core.random()))
    raise TimeoutError(f"modify: others changed the item {_MODIFY_TRIES} times in a row; change it less often")


def scan(core: Core, timeout: float | None) -> Operation[None]:
    """Emits (id, item) of a whole namespace; a scan that breaks off goes on after the last page that came."""
    request = kv.ScanRequest(namespace=core.name())
    patience = core.settings.timeout if timeout is None else timeout
    failures, since = 0, core.monotonic()
    while True:
        number = core.balancer.start(core.monotonic(), core.random())
        works: bool | None = None
        try:
            yield Open(methods.SCAN, request, number)
            outcome = yield Next()
            while isinstance(outcome, Reply):
                failures, works = 0, True
                page: kv.ScanResponse = outcome.message
                for entry in page.entries:
                    for item in entry.items:
                        yield Emit((entry.id, _item_of(core, item)))
                since = core.monotonic()
                if not page.next_page_token:
                    return
                request.selection.page_token = page.next_page_token
                outcome = yield Next()
            if isinstance(outcome, Failure) and is_of_the_gateway(outcome.error):
                works = False
        finally:
            core.balancer.finish(number, works, core.monotonic())
        if isinstance(outcome, End):
            return
        assert isinstance(outcome, Failure)
        failures += 1
        wait = _SCAN.wait(failures, outcome.error.retry_after, core.random())
        if not may_reopen(outcome.error) or core.monotonic() + wait > since + patience:
            outcome.error.method, outcome.error.address, outcome.error.tries = "Scan", core.addresses[number], failures
            raise outcome.error
        yield Sleep(wait)
