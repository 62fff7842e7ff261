"""A client's core from the arguments of its constructor."""

from __future__ import annotations

import os

from prism._core.addresses import DEFAULT_SERVER, parse
from prism._core.call import Core
from prism.types import Settings


def core_of(
    server_or_namespace: str,
    namespace: str,
    server: str,
    timeout: float,
    tries: int,
    compress_above: int | None,
    decompress: bool,
    decompressed_max: int,
) -> Core:
    """Checks the arguments. A name without a colon is a namespace: those have none."""
    if server_or_namespace:
        is_server = ":" in server_or_namespace
        if server if is_server else namespace:
            raise ValueError(f"{server_or_namespace!r}: give the {'server' if is_server else 'namespace'} once")
        server, namespace = (server_or_namespace, namespace) if is_server else (server, server_or_namespace)
    if timeout <= 0:
        raise ValueError(f"timeout: {timeout} is not a number of seconds above 0")
    if tries < 1:
        raise ValueError(f"tries: {tries} is not 1 or more")
    if compress_above is not None and compress_above < 0:
        raise ValueError(f"compress_above: {compress_above} is not a number of bytes, nor None")
    if decompressed_max < 1:
        raise ValueError(f"decompressed_max: {decompressed_max} is not a number of bytes above 0")
    addresses = parse(server or os.environ.get("PRISM_SERVER", "") or DEFAULT_SERVER)
    return Core(addresses, Settings(timeout, tries, compress_above, decompress, decompressed_max), namespace)
