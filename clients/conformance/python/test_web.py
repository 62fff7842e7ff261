"""What browsers, proxies and curl meet beside plain calls: hosts, preflights, calls by GET, streams, compression, refusals."""

import base64
import gzip
import json
import threading
import time

import grpc
import pytest
from conftest import NAMESPACE, OPTIONS, PATIENCE_S, TARGET, scratch_namespace, status_details
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from prism.keyvalue.v1 import keyvalue_pb2_grpc
from test_http import GET, PUT, VERSIONS, b64, call_grpc, call_json, curl

SCAN = "/prism.keyvalue.v1.KeyValue/Scan"
LARGE = b"compressible " * 10_000


def put(tmp_path, identifier, value, namespace=NAMESPACE):
    message = {"namespace": namespace, "id": identifier, "items": [{"key": b64(b"k"), "value": b64(value)}]}
    answer = call_json(tmp_path, "--http1.1", PUT, message)
    assert answer.status == 200, answer.body


@VERSIONS
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/", GET, "/nope"])
def test_a_foreign_host_is_refused_on_loopback(tmp_path, version, path):
    """A page whose own name leads to 127.0.0.1 must not be served (DNS rebinding)."""
    message = json.dumps({"namespace": NAMESPACE, "id": "x"}).encode()
    body = message if path == GET else None
    answer = curl(tmp_path, path, version, "--header", "host: rebound.example:8980", "--header", "content-type: application/json", body=body)
    assert answer.status == 403
    assert answer.json()["code"] == "permission_denied"
    assert "rebound.example" in answer.json()["message"]


@VERSIONS
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8980", "gateway.localhost"])
def test_loopback_names_are_taken(tmp_path, version, host):
    assert curl(tmp_path, "/healthz", version, "--header", f"host: {host}").status == 200


@pytest.mark.parametrize("keeps_open", [False, True], ids=["ends", "keeps its side open"])
def test_a_foreign_authority_is_refused_in_grpc(keeps_open):
    may_end = threading.Event()

    def requests():
        yield kv.GetRequest(namespace=NAMESPACE, id="x").SerializeToString()
        if keeps_open:
            may_end.wait(PATIENCE_S)

    with grpc.insecure_channel(TARGET, [*OPTIONS, ("grpc.default_authority", "rebound.example")]) as channel:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            next(channel.stream_stream(GET)(requests(), timeout=PATIENCE_S))
        took = time.monotonic() - began
        may_end.set()
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert status_details(refused.value)["ErrorInfo"].reason == "HOST_NOT_ALLOWED"
    assert took < PATIENCE_S / 3


# Above what a list of header fields may have, and far below what ends a connection.
LARGE_FIELD = "x-large: " + "h" * (20 << 10)


def test_header_fields_that_are_too_large_are_answered_in_grpc(tmp_path):
    # Without a body: curl 7.88 waits for ever if a reply without one comes before it has sent its own.
    fields = ("content-type: application/grpc", "te: trailers", LARGE_FIELD)
    options = [option for field in fields for option in ("--header", field)]
    answer = curl(tmp_path, GET, "--http2-prior-knowledge", *options, body=b"")
    assert answer.status == 200 and answer.headers["content-type"] == "application/grpc"
    assert answer.headers["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert "nothing was done" in answer.headers["grpc-message"]
    padded = answer.headers["grpc-status-details-bin"]
    assert b"HEADERS_TOO_LARGE" in base64.b64decode(padded + "=" * (-len(padded) % 4))


@VERSIONS
def test_header_fields_that_are_too_large_are_answered_in_json(tmp_path, version):
    answer = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": "x"}, "--header", LARGE_FIELD)
    assert answer.status == 431
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == "resource_exhausted" and "header fields" in answer.json()["message"]


@VERSIONS
@pytest.mark.parametrize("version_field, status", [("1", 200), ("2", 400), ("", 400), ("v1", 400)])
def test_the_version_of_the_connect_protocol(tmp_path, version, version_field, status, fresh_id):
    # curl leaves out a field without a value unless it ends with a semicolon.
    field = f"connect-protocol-version: {version_field}" if version_field else "connect-protocol-version;"
    answer = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id}, "--header", field)
    assert answer.status == status
    if status == 400:
        assert answer.json()["code"] == "invalid_argument"
        assert "connect-protocol-version" in answer.json()["message"]


@VERSIONS
@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("GET", PUT, "POST"),
        ("DELETE", PUT, "POST"),
        ("PUT", GET, "GET, HEAD, POST"),
        ("HEAD", SCAN, "GET, POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(tmp_path, version, method, path, allow):
    options = ["--head"] if method == "HEAD" else ["--request", method]
    answer = curl(tmp_path, path, version, *options)
    assert answer.status == 405
    assert answer.headers["allow"] == allow


@VERSIONS
@pytest.mark.parametrize(
    "path, content_type, named",
    [
        (PUT, "content-type: text/plain", '"text/plain"'),
        (PUT, "content-type: application/json; charset=latin1", "UTF-8"),
        (PUT, "content-type: application/grpc+thrift", '"application/grpc+thrift"'),
        (PUT, "content-type:", "no content-type"),
        (PUT, "content-type: application/connect+json", "application/json"),
        (SCAN, "content-type: application/proto", "application/connect+proto"),
        (SCAN, "content-type: application/json", "text/event-stream"),
    ],
)
def test_a_wrong_content_type_is_named(tmp_path, version, path, content_type, named):
    answer = curl(tmp_path, path, version, "--header", content_type, body=b"{}")
    assert answer.status == 415
    assert named in answer.json()["message"]
    assert "application/json" in answer.headers["accept-post"]


def test_grpc_over_http1_is_told_what_it_needs(tmp_path):
    answer = curl(tmp_path, GET, "--http1.1", "--header", "content-type: application/grpc", body=b"\0\0\0\0\0")
    assert answer.status == 415
    assert "HTTP/2" in answer.json()["message"]


@VERSIONS
def test_calls_without_side_effects_by_get(tmp_path, version, fresh_id):
    put(tmp_path, fresh_id, b"v")
    message = json.dumps({"namespace": NAMESPACE, "id": fresh_id})
    query = ("--get", "--data-urlencode", "encoding=json", "--data-urlencode", f"message={message}")
    answer = curl(tmp_path, GET, version, *query, "--data-urlencode", "connect=v1")
    assert answer.status == 200, answer.body
    (item,) = answer.json()["items"]
    assert item.pop("version")
    assert item == {"key": b64(b"k"), "value": b64(b"v")}
    assert answer.headers["cache-control"] == "no-store"
    raw = kv.GetRequest(namespace=NAMESPACE, id=fresh_id).SerializeToString()
    query = ("--get", "--data-urlencode", "encoding=proto", "--data-urlencode", f"message={b64(raw)}")
    answer = curl(tmp_path, GET, version, *query, "--data", "base64=1")
    assert kv.GetResponse.FromString(answer.body).items[0].value == b"v"
    wrong = curl(tmp_path, GET, version, "--get", "--data", "message=%7B%7D")
    assert wrong.status == 400 and "encoding=" in wrong.json()["message"]
    refused = curl(tmp_path, GET, version, "--get", "--data", "encoding=json", "--data-urlencode", 'message={"namespace":"nope","id":"x"}')
    assert refused.status == 404 and refused.json()["code"] == "not_found"


@VERSIONS
def test_a_preflight(tmp_path, version):
    asked = ("--header", "access-control-request-method: POST", "--header", "access-control-request-headers: content-type,x-own")
    foreign = curl(tmp_path, GET, version, "--request", "OPTIONS", "--header", "origin: https://foreign.example", *asked)
    assert foreign.status == 403
    assert "https://foreign.example" in foreign.json()["message"]
    assert "access-control-allow-origin" not in foreign.headers
    plain = curl(tmp_path, GET, version, "--request", "OPTIONS")
    assert plain.status == 204 and plain.headers["allow"] == "GET, HEAD, POST" and plain.body == b""
    call = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": "x"}, "--header", "origin: https://foreign.example")
    assert call.status == 200 and "access-control-allow-origin" not in call.headers


@VERSIONS
def test_a_stream_for_curl(tmp_path, version, client):
    name = "curl-stream" + version.replace("--", "-").replace(".", "-")
    with scratch_namespace(client, name):
        for number in range(7):
            put(tmp_path, f"id-{number}", b"v", name)
        message = {"namespace": name, "selection": {"itemLimit": 3}}
        lines = call_json(tmp_path, version, SCAN, message, "--header", "accept: application/x-ndjson")
        assert lines.headers["content-type"] == "application/x-ndjson"
        pages = [json.loads(line) for line in lines.body.splitlines()]
        assert sorted(entry["id"] for page in pages for entry in page.get("entries", [])) == [f"id-{n}" for n in range(7)]
        events = call_json(tmp_path, version, SCAN, message, "--header", "accept: text/event-stream")
        assert events.headers["content-type"] == "text/event-stream"
        assert events.body.endswith(b"event: end\ndata: {}\n\n")
        assert events.body.count(b"\ndata: {\"entries\"") >= 3
    unknown = call_json(tmp_path, version, SCAN, {"namespace": "nope"}, "--header", "accept: application/x-ndjson")
    assert unknown.status == 404 and unknown.json()["code"] == "not_found"


def test_a_stream_over_http_1_0_ends_with_the_connection(tmp_path):
    answer = call_json(tmp_path, "--http1.0", SCAN, {"namespace": NAMESPACE}, "--header", "accept: application/x-ndjson")
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers and answer.headers["connection"] == "close"
    for line in answer.body.splitlines():
        json.loads(line)


@VERSIONS
@pytest.mark.parametrize("accepted, encoding", [("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("gzip;q=0, br", None)])
def test_large_replies_are_compressed_for_those_who_accept_it(tmp_path, version, accepted, encoding, fresh_id):
    put(tmp_path, fresh_id, LARGE)
    message = {"namespace": NAMESPACE, "id": fresh_id}
    answer = call_json(tmp_path, version, GET, message, "--header", f"accept-encoding: {accepted}")
    assert answer.headers.get("content-encoding") == encoding
    body = answer.body
    if encoding is not None:
        assert answer.headers["vary"] == "accept-encoding"
        assert len(body) < len(LARGE) // 10
        # curl unpacks what it is told to.
        header = ("--header", f"accept-encoding: {accepted}", "--compressed")
        unpacked = call_json(tmp_path, version, GET, message, *header)
        assert unpacked.headers["content-encoding"] == encoding
        body = unpacked.body
    assert json.loads(body)["items"][0]["value"] == b64(LARGE)
    plain = call_json(tmp_path, version, GET, message)
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("length, encoding", [(11_000, None), (13_000, "gzip")])
def test_a_reply_is_compressed_above_16_kib_only(tmp_path, length, encoding, fresh_id):
    """In base64 the values are 14,667 and 17,333 bytes long."""
    put(tmp_path, fresh_id, LARGE[:length])
    accepts = ("--header", "accept-encoding: gzip")
    answer = call_json(tmp_path, "--http1.1", GET, {"namespace": NAMESPACE, "id": fresh_id}, *accepts)
    assert answer.headers.get("content-encoding") == encoding


def test_large_grpc_replies_are_compressed_for_those_who_accept_it(tmp_path, fresh_id):
    put(tmp_path, fresh_id, LARGE)
    request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id).SerializeToString()
    answer = call_grpc(tmp_path, GET, request, "grpc-accept-encoding: identity,deflate,gzip")
    assert answer.headers["grpc-encoding"] == "gzip" and answer.headers["grpc-status"] == "0"
    assert answer.body[0] == 1
    assert kv.GetResponse.FromString(gzip.decompress(answer.body[5:])).items[0].value == LARGE
    plain = call_grpc(tmp_path, GET, request)
    assert plain.body[0] == 0 and "grpc-encoding" not in plain.headers


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_grpcio_with_compression_both_ways(compression, fresh_id):
    with grpc.insecure_channel(TARGET, OPTIONS, compression=compression) as channel:
        stub = keyvalue_pb2_grpc.KeyValueStub(channel)
        items = [kv.Item(key=b"k", value=LARGE)]
        stub.Put(kv.PutRequest(namespace=NAMESPACE, id=fresh_id, items=items), timeout=PATIENCE_S)
        assert stub.Get(kv.GetRequest(namespace=NAMESPACE, id=fresh_id), timeout=PATIENCE_S).items[0].value == LARGE


@VERSIONS
def test_a_deflate_body(tmp_path, version, fresh_id):
    import zlib

    message = {"namespace": NAMESPACE, "id": fresh_id, "items": [{"key": b64(b"k"), "value": b64(b"v" * 100_000)}]}
    body = zlib.compress(json.dumps(message).encode())
    answer = call_json(tmp_path, version, PUT, body, "--header", "content-encoding: deflate")
    assert answer.status == 200, answer.body
    unknown = call_json(tmp_path, version, PUT, body, "--header", "content-encoding: br")
    assert unknown.status == 501 and "deflate" in unknown.headers["accept-encoding"]


@VERSIONS
def test_compressed_metrics(tmp_path, version):
    answer = curl(tmp_path, "/metrics", version, "--header", "accept-encoding: gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert b"# TYPE " in gzip.decompress(answer.body)


@VERSIONS
def test_head_has_no_body(tmp_path, version):
    answer = curl(tmp_path, "/metrics", version, "--head")
    assert answer.status == 200 and int(answer.headers["content-length"]) > 100
