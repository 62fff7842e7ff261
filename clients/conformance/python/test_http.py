"""The same calls without a gRPC library: curl and JSON, on HTTP/1.1 and on HTTP/2 with prior knowledge."""

import base64
import gzip
import json
import socket
import struct
import subprocess

import pytest
from conftest import NAMESPACE, PATIENCE_S, PROMISED, TARGET
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from test_keyvalue import put

PUT = "/prism.keyvalue.v1.KeyValue/Put"
GET = "/prism.keyvalue.v1.KeyValue/Get"
SWAP = "/prism.keyvalue.v1.KeyValue/CompareAndSwap"
VERSIONS = pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])


class Answer:
    """What curl printed: status, headers (with trailers), body."""

    def __init__(self, raw_headers, body):
        lines = raw_headers.decode("latin-1").replace("\r", "").split("\n")
        finals = [n for n, line in enumerate(lines) if line.startswith("HTTP/") and not line.split()[1].startswith("1")]
        assert finals, f"no final response in {lines}"
        self.status = int(lines[finals[-1]].split()[1])
        self.headers = {}
        for line in lines[finals[-1] + 1 :]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()
        self.body = body

    def json(self):
        return json.loads(self.body)


def curl(tmp_path, path, *arguments, body=None):
    headers = tmp_path / "headers"
    command = ["curl", "--silent", "--show-error", "--max-time", "30", "--dump-header", headers]
    if body is not None:
        command += ["--data-binary", "@-"]
    command += [*arguments, f"http://{TARGET}{path}"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return Answer(headers.read_bytes(), done.stdout)


def call_json(tmp_path, version, path, message, *arguments):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return curl(tmp_path, path, version, "--header", "content-type: application/json", *arguments, body=body)


def b64(raw):
    return base64.b64encode(raw).decode()


def test_a_repeat_in_another_form_is_a_repeat(tmp_path, client, fresh_id):
    item = kv.Item(value=b"1")
    item.ttl.FromSeconds(3600)
    request = kv.CompareAndSwapRequest(namespace=NAMESPACE, id=fresh_id, key=b"k", absent=kv.Absent(), item=item)
    request.idempotency_token.token = fresh_id.encode()[:64]
    request.idempotency_token.generation_time.GetCurrentTime()
    assert client.kv.CompareAndSwap(request, timeout=PATIENCE_S).swapped
    message = {
        "item": {"ttl": "3600.000s", "value": b64(b"1"), "compression": 0},
        "absent": {},
        "idempotencyToken": {
            "token": b64(request.idempotency_token.token),
            "generationTime": request.idempotency_token.generation_time.ToJsonString(),
        },
        "key": b64(b"k"),
        "id": fresh_id,
        "namespace": NAMESPACE,
    }
    answer = call_json(tmp_path, "--http1.1", SWAP, message)
    assert (answer.status, answer.json().get("swapped")) == (200, True), answer.body
    message["item"]["value"] = b64(b"2")
    answer = call_json(tmp_path, "--http1.1", SWAP, message)
    assert answer.status == 400 and b"TOKEN_REUSED" in answer.body, answer.body


def frame(message, compressed=0):
    return struct.pack(">BI", compressed, len(message)) + message


def call_grpc(tmp_path, path, message, *arguments, compressed=0):
    headers = ("content-type: application/grpc", "te: trailers", *arguments)
    options = [option for header in headers for option in ("--header", header)]
    return curl(tmp_path, path, "--http2-prior-knowledge", *options, body=frame(message, compressed))


@VERSIONS
def test_put_and_get_as_json(tmp_path, version, fresh_id):
    value = bytes(range(256))
    items = [{"key": b64(b"k"), "value": b64(value)}]
    put = call_json(tmp_path, version, PUT, {"namespace": NAMESPACE, "id": fresh_id, "items": items})
    assert put.status == 200
    assert put.headers["content-type"] == "application/json"
    assert put.json()["result"]["durability"] == PROMISED
    got = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id})
    assert got.status == 200
    (item,) = got.json()["items"]
    assert base64.b64decode(item["key"]) == b"k" and base64.b64decode(item["value"]) == value


@VERSIONS
def test_put_and_get_as_protobuf_over_plain_http(tmp_path, version, fresh_id):
    header = ("--header", "content-type: application/proto")
    request = kv.PutRequest(namespace=NAMESPACE, id=fresh_id, items=[kv.Item(key=b"k", value=b"v")])
    put = curl(tmp_path, PUT, version, *header, body=request.SerializeToString())
    assert put.status == 200 and put.headers["content-type"] == "application/proto"
    request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id)
    got = curl(tmp_path, GET, version, *header, body=request.SerializeToString())
    assert kv.GetResponse.FromString(got.body).items[0].value == b"v"


@VERSIONS
@pytest.mark.parametrize(
    "status, code, message",
    [
        (404, "not_found", {"namespace": "no-such-namespace", "id": "x"}),
        (400, "invalid_argument", {"namespace": NAMESPACE}),
        (400, "invalid_argument", {"namespace": NAMESPACE, "id": "x", "no_such_field": 1}),
        (400, "invalid_argument", b'{"namespace": '),
        (400, "invalid_argument", b"[]"),
    ],
    ids=["unknown namespace", "no id", "unknown field", "torn JSON", "wrong JSON"],
)
def test_errors_as_json(tmp_path, version, status, code, message):
    answer = call_json(tmp_path, version, GET, message)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == code
    assert answer.json()["message"]


@VERSIONS
def test_an_error_carries_its_details(tmp_path, version):
    answer = call_json(tmp_path, version, GET, {"namespace": "no-such-namespace", "id": "x"})
    types = [detail["type"] for detail in answer.json()["details"]]
    assert "google.rpc.ErrorInfo" in types


@VERSIONS
def test_a_request_has_a_name(tmp_path, version, client, fresh_id):
    """A reply repeats its client's name of the request; a failed one without gets the gateway's."""
    named = ("--header", "x-request-id: order-17")
    put(client, fresh_id, [(b"k", b"v")])
    answer = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id}, *named)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "order-17")
    answer = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id})
    assert answer.status == 200 and "x-request-id" not in answer.headers
    stream = ("--header", "accept: text/event-stream", *named)
    answer = call_json(tmp_path, version, "/prism.keyvalue.v1.KeyValue/Scan", {"namespace": NAMESPACE}, *stream)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "order-17")

    for path, options, status in [(GET, named, 404), (GET, (), 404), ("/no/such/path", named, 404), ("/no/such/path", (), 404)]:
        answer = call_json(tmp_path, version, path, {"namespace": "no-such-namespace", "id": "x"}, *options)
        assert answer.status == status
        name = answer.headers["x-request-id"]
        assert (name == "order-17") == (options == named)
        details = {detail["type"]: detail.get("debug") for detail in answer.json()["details"]}
        assert details["google.rpc.RequestInfo"] == {"requestId": name}


@VERSIONS
def test_unknown_method(tmp_path, version):
    answer = call_json(tmp_path, version, "/prism.keyvalue.v1.KeyValue/Nope", {})
    assert answer.status in (404, 501)


@VERSIONS
def test_wrong_content_type(tmp_path, version):
    answer = curl(tmp_path, PUT, version, "--header", "content-type: text/plain", body=b"hello")
    assert answer.status == 415


@VERSIONS
def test_wrong_http_method(tmp_path, version):
    answer = curl(tmp_path, PUT, version, "--request", "DELETE")
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


@VERSIONS
def test_a_gzip_body(tmp_path, version, fresh_id):
    message = {"namespace": NAMESPACE, "id": fresh_id, "items": [{"key": b64(b"k"), "value": b64(b"v" * 100_000)}]}
    body = gzip.compress(json.dumps(message).encode())
    answer = call_json(tmp_path, version, PUT, body, "--header", "content-encoding: gzip")
    assert answer.status == 200, answer.body


@VERSIONS
def test_a_large_body(tmp_path, version, fresh_id):
    value = b64(bytes(range(256)) * 8192)
    message = {"namespace": NAMESPACE, "id": fresh_id, "items": [{"key": "", "value": value}]}
    assert call_json(tmp_path, version, PUT, message).status == 200
    got = call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id})
    assert got.json()["items"][0]["value"] == value


def test_a_chunked_body(tmp_path, fresh_id):
    message = {"namespace": NAMESPACE, "id": fresh_id, "items": [{"key": b64(b"k"), "value": b64(b"v")}]}
    answer = call_json(tmp_path, "--http1.1", PUT, message, "--header", "transfer-encoding: chunked")
    assert answer.status == 200, answer.body


def test_two_requests_on_one_http1_connection(tmp_path):
    command = ["curl", "--silent", "--http1.1", "--max-time", "30", "--write-out", "%{num_connects} ", "--output", "/dev/null"]
    urls = [f"http://{TARGET}/healthz", "--output", "/dev/null", f"http://{TARGET}/readyz"]
    done = subprocess.run([*command, *urls], capture_output=True, timeout=60, check=True)
    assert done.stdout.split() == [b"1", b"0"], "the second request reuses the connection"


@VERSIONS
def test_a_namespace_through_json(tmp_path, version):
    name = "curl" + version.replace("--", "-").replace(".", "-")
    yaml = f"namespace: {name}\nteam: t\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n"
    created = call_json(tmp_path, version, "/prism.admin.v1.Namespaces/Create", {"yaml": yaml})
    assert created.status == 200, created.body
    assert created.json()["namespace"]["name"] == name
    again = call_json(tmp_path, version, "/prism.admin.v1.Namespaces/Create", {"yaml": yaml})
    assert again.status == 409 and again.json()["code"] == "already_exists"
    assert call_json(tmp_path, version, "/prism.admin.v1.Namespaces/Delete", {"name": name}).status == 200


@VERSIONS
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes(tmp_path, version, path):
    assert curl(tmp_path, path, version).status == 200


@VERSIONS
def test_metrics(tmp_path, version, fresh_id):
    call_json(tmp_path, version, GET, {"namespace": NAMESPACE, "id": fresh_id})
    answer = curl(tmp_path, "/metrics", version)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in samples:
        name, value = line.rsplit(" ", 1)
        float(value)
        assert name.split("{")[0].replace("_", "").replace(":", "").isalnum()
    assert f'namespace="{NAMESPACE}"' in text and "# TYPE " in text
    assert any("_bucket{" in line and 'le="+Inf"' in line for line in samples), "latency comes as histograms"


@VERSIONS
def test_an_unknown_path(tmp_path, version):
    assert curl(tmp_path, "/no/such/path", version).status == 404


@pytest.mark.parametrize("timeout", ["1n", "00000001n"])
def test_a_deadline_that_has_passed(tmp_path, timeout, fresh_id):
    """Sent raw, so that no library gives up first: the server itself says so."""
    request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id).SerializeToString()
    answer = call_grpc(tmp_path, GET, request, f"grpc-timeout: {timeout}")
    assert answer.status == 200
    assert answer.headers["grpc-status"] == "4"


@pytest.mark.parametrize("timeout", ["", "n", "123456789S", "1x", "-1S", "1"])
def test_a_deadline_that_is_none(tmp_path, timeout, fresh_id):
    request = kv.GetRequest(namespace=NAMESPACE, id=fresh_id).SerializeToString()
    header = f"grpc-timeout: {timeout}" if timeout else "grpc-timeout;"
    answer = call_grpc(tmp_path, GET, request, header)
    assert answer.headers["grpc-status"] in ("3", "13"), "malformed, and said so"


def test_an_unknown_compression(tmp_path):
    request = kv.GetRequest(namespace=NAMESPACE, id="x").SerializeToString()
    answer = call_grpc(tmp_path, GET, request, "grpc-encoding: lzma", compressed=1)
    assert answer.headers["grpc-status"] == "12"
    assert "gzip" in answer.headers["grpc-accept-encoding"]


def test_a_compressed_flag_without_an_encoding(tmp_path):
    answer = call_grpc(tmp_path, GET, b"whatever", compressed=1)
    assert answer.headers["grpc-status"] == "13"


def test_a_compression_bomb(tmp_path, fresh_id):
    bomb = gzip.compress(b"\x00" * (64 << 20))
    answer = call_grpc(tmp_path, PUT, bomb, "grpc-encoding: gzip", compressed=1)
    assert answer.headers["grpc-status"] == "8", "refused at the maximum, not inflated whole"


def test_grpc_with_a_wrong_content_type(tmp_path):
    answer = curl(
        tmp_path, PUT, "--http2-prior-knowledge", "--header", "content-type: application/grpcx", body=frame(b"")
    )
    assert answer.status == 415


@VERSIONS
def test_a_body_beyond_the_maximum_is_refused_and_the_answer_arrives(tmp_path, version):
    """The answer is there before curl has sent all; not one of forty may be lost on the way."""
    body = tmp_path / "body"
    # More than the sockets' buffers hold; each curl reads all of it first.
    body.write_bytes(b"x" * (32 << 20))
    lost = []
    for attempt in range(40):
        command = ["curl", "--silent", "--show-error", "--max-time", "30", version, "--output", tmp_path / "answer"]
        command += ["--write-out", "%{http_code}", "--header", "content-type: application/json", "--header", "expect:"]
        command += ["--data-binary", f"@{body}", f"http://{TARGET}{PUT}"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        answer = tmp_path / "answer"
        code = json.loads(answer.read_bytes())["code"] if answer.exists() else ""
        answer.unlink(missing_ok=True)
        if (done.returncode, done.stdout, code) != (0, b"413", "resource_exhausted"):
            lost.append((attempt, done.returncode, done.stdout, done.stderr))
    assert not lost, f"{len(lost)} of 40: {lost[0]}"


@pytest.mark.parametrize(
    "path, kind, status",
    [
        (PUT, "application/grpc", 415),
        (PUT, "text/plain", 415),
        ("/no/such/path", "application/json", 404),
        ("/readyz", "application/json", 405),
    ],
)
def test_an_error_comes_before_a_body_without_end(path, kind, status):
    host, port = TARGET.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: {TARGET}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        client.sendall(head.encode() + b"5\r\nhello\r\n")
        answer = client.makefile("rb").read()
    line, _, rest = answer.partition(b"\r\n")
    assert int(line.split()[1]) == status
    assert b"connection: close" in rest


def test_a_refused_request_gets_no_permission_to_go_on(tmp_path):
    """A client that asks first (`expect: 100-continue`) hears the refusal, and sends no body."""
    arguments = ["--http1.1", "--header", "expect: 100-continue", "--header", "content-type: text/plain"]
    answer = curl(tmp_path, PUT, *arguments, body=b"x" * (1 << 20))
    assert answer.status == 415
    assert b"100 Continue" not in (tmp_path / "headers").read_bytes()
