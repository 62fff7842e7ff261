"""TLS, with a certificate of the client and without one, by threads and by asyncio."""

import asyncio
import ssl
import subprocess

import pytest
from conftest import PATIENCE_S, start, yaml

from prism import Client, aio, errors


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An authority, with a certificate for the gateway and one for a client."""
    folder = tmp_path_factory.mktemp("tls")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    for name, names in [
        ("gateway", "IP:127.0.0.1,DNS:localhost"),
        ("client", "URI:spiffe://test.example/service/web"),
    ]:
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        openssl(folder, "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ["-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.pem"]
        openssl(folder, "x509", "-req", *signed, "-days", "2", "-extfile", f"{name}.ext")
    return folder


@pytest.fixture(scope="module")
def gateway(files):
    """A gateway that asks its clients for certificates."""
    settings = {"cert_file": "gateway.pem", "key_file": "gateway.key", "client_ca_file": "ca.pem"}
    flags = [f"--set=tls.{key}={files / name}" for key, name in settings.items()]
    context = ssl.create_default_context(cafile=files / "ca.pem")
    context.load_cert_chain(files / "client.pem", files / "client.key")
    with start(files, "--embedded", "memory", "--shards", "2", *flags, tls=context) as server:
        yield server


def arguments(files, server):
    return {
        "server": f"https://{server.address}",
        "ca": str(files / "ca.pem"),
        "cert": str(files / "client.pem"),
        "cert_key": str(files / "client.key"),
        "timeout": PATIENCE_S,
    }


def test_calls_and_streams_of_threads(files, gateway):
    with Client("encrypted", **arguments(files, gateway)) as client:
        client.admin.create(yaml("encrypted", "keyvalue", "best-effort"))
        client.put("alice", {"theme": "dark", "large": "x" * (4 << 20)})
        assert client.get("alice", "theme") == {b"theme": b"dark"}
        assert len(client.get("alice", "large")[b"large"]) == 4 << 20
        assert {id for id, _ in client.scan()} == {"alice"}


def test_calls_of_asyncio_with_files_of_the_environment(files, gateway, monkeypatch):
    given = arguments(files, gateway)
    for name in ("ca", "cert", "cert_key"):
        monkeypatch.setenv(f"PRISM_{name.upper()}", given.pop(name))

    async def run():
        async with aio.Client("by-tasks", **given) as client:
            await client.admin.create(yaml("by-tasks", "keyvalue", "best-effort"))
            await client.put("bob", {"theme": "light"})
            return await client.get("bob")

    assert asyncio.run(run()) == {b"theme": b"light"}


def test_without_a_certificate_nobody_gets_in_and_a_file_that_is_missing_is_named(files, gateway):
    given = arguments(files, gateway)
    given.update(timeout=2.0, cert=None, cert_key=None)
    with Client("encrypted", **given) as client, pytest.raises(errors.PrismError):
        client.get("alice")
    with pytest.raises(ValueError, match="cert_key: cannot read /nowhere"):
        Client("encrypted", **{**given, "cert": str(files / "client.pem"), "cert_key": "/nowhere"})
    with pytest.raises(ValueError, match="come together"):
        Client("encrypted", **{**given, "cert": str(files / "client.pem")})
