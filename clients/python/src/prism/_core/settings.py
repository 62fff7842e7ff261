"""A client's core from the arguments of its constructor."""

from __future__ import annotations

import os
from pathlib import Path

from prism._core.addresses import DEFAULT_SERVER, is_encrypted, parse
from prism._core.call import Core
from prism.types import Settings, Tls


def core_of(
    server_or_namespace: str,
    namespace: str,
    server: str,
    timeout: float,
    tries: int,
    compress_above: int | None,
    decompress: bool,
    decompressed_max: int,
    files: tuple[str | None, str | None, str | None] = (None, None, None),
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
    server = server or os.environ.get("PRISM_SERVER", "") or DEFAULT_SERVER
    settings = Settings(timeout, tries, compress_above, decompress, decompressed_max)
    return Core(parse(server), settings, namespace, tls_of(*files) if is_encrypted(server) else None)


def tls_of(ca: str | None, cert: str | None, cert_key: str | None) -> Tls:
    """Reads the files; those that are not given are the environment's."""

    def read(argument: str, file: str | None) -> bytes | None:
        file = file or os.environ.get(f"PRISM_{argument.upper()}")
        try:
            return Path(file).read_bytes() if file else None
        except OSError as error:
            raise ValueError(f"{argument}: cannot read {file}: {error.strerror}") from error

    tls = Tls(read("ca", ca), read("cert", cert), read("cert_key", cert_key))
    if (tls.cert is None) != (tls.cert_key is None):
        raise ValueError("cert and cert_key: a certificate and its private key come together")
    return tls
