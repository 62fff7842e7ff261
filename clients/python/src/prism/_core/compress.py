"""Compression of values, bounded on the way back.

Every client can read it: a value of KeyValue names it in `Item.compression`, a message of PubSub or Queue in the attribute
`content-encoding` (RFC 9110 section 8.4). What is written is gzip (RFC 1952), which every language has.
"""

from __future__ import annotations

import zlib

from prism.errors import UnusablePayload

# Window bits that make zlib read and write gzip.
_GZIP = 31
# Fast rather than small: between 1 and 9 the size changes less than the time.
_LEVEL = 3
# What does not shrink by at least an eighth is sent as it is.
_GAIN = 8


def compress(data: bytes, above: int | None) -> bytes | None:
    """`data` as gzip if it is longer than `above` and gains by it; else None. The same data gives the same bytes."""
    if above is None or len(data) <= above:
        return None
    machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    packed = machine.compress(data) + machine.flush()
    return packed if len(packed) <= len(data) - len(data) // _GAIN else None


def decompress(data: bytes, most: int) -> bytes:
    """The content of one or more gzip members, at most `most` bytes of it: a small value can hold a very large one."""
    parts: list[bytes] = []
    left = most
    rest = data
    while True:
        machine = zlib.decompressobj(_GZIP)
        try:
            # One byte more than there may be, to see that there is more.
            part = machine.decompress(rest, left + 1)
        except zlib.error as error:
            raise UnusablePayload(f"the value is marked as gzip and cannot be decompressed: {error}") from error
        if len(part) > left:
            raise UnusablePayload(f"the value is longer than {most} bytes decompressed, the client's `decompressed_max`")
        if not machine.eof:
            raise UnusablePayload("the value is marked as gzip and ends too early")
        parts.append(part)
        left -= len(part)
        rest = machine.unused_data
        if not rest:
            return b"".join(parts)
