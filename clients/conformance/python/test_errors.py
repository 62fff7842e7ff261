"""What a caller is told when something is wrong: status codes and machine-readable details, through grpcio."""

import re

import grpc
import pytest
from conftest import DURABILITY, NAMESPACE, PATIENCE_S, status_details
from prism.common.v1 import common_pb2 as common
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from test_keyvalue import get, put


def refused(call, *arguments, **keywords):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **keywords)
    return caught.value


@pytest.mark.parametrize(
    "path", ["/prism.keyvalue.v1.KeyValue/Nope", "/prism.keyvalue.v1.Nope/Put", "/nope", "/grpc.health.v1.Health/Nope"]
)
def test_unknown_method(client, path, fresh_id):
    error = refused(client.channel.unary_unary(path), b"", timeout=PATIENCE_S)
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    get(client, fresh_id)


def test_unknown_namespace(client, fresh_id):
    for error in (
        refused(get, client, fresh_id, namespace="no-such-namespace"),
        refused(put, client, fresh_id, [(b"k", b"v")], namespace="no-such-namespace"),
        refused(list, client.kv.Scan(kv.ScanRequest(namespace="no-such-namespace"), timeout=PATIENCE_S)),
    ):
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "no-such-namespace" in error.details()
        info = status_details(error)["ErrorInfo"]
        assert info.domain == "prism"
        assert info.reason == "NAMESPACE_UNKNOWN"
        assert info.metadata["namespace"] == "no-such-namespace"


def test_a_failed_request_has_a_name(client, fresh_id):
    """Its client's, or one of the gateway's own."""
    names = [("x-request-id", "order-17/retry.2"), ("x-request-id", "not one that can be repeated"), ("x-other", "1")]
    given, unusable, own = (
        status_details(refused(get, client, fresh_id, namespace="no-such-namespace", metadata=[name]))["RequestInfo"]
        for name in names
    )
    assert given.request_id == "order-17/retry.2"
    assert unusable.request_id != own.request_id
    for info in (unusable, own):
        assert re.fullmatch(r"[0-9a-f]{8}-\d+-\d+\.\d+-\d+", info.request_id)
    scan = kv.ScanRequest(namespace="no-such-namespace")
    error = refused(list, client.kv.Scan(scan, timeout=PATIENCE_S, metadata=[("x-request-id", "a-scan")]))
    assert status_details(error)["RequestInfo"].request_id == "a-scan"


def requests_with_a_bad_field():
    ok = kv.Item(key=b"k", value=b"v")
    fine = kv.Mutation(id="fine", put=kv.PutItems(items=[ok]))
    yield "id", "Put", kv.PutRequest(namespace=NAMESPACE, items=[ok])
    yield "id", "Put", kv.PutRequest(namespace=NAMESPACE, id="i" * 1025, items=[ok])
    yield "items", "Put", kv.PutRequest(namespace=NAMESPACE, id="x")
    yield "items", "Put", kv.PutRequest(namespace=NAMESPACE, id="x", items=[ok] * 1001)
    yield "items[1].key", "Put", kv.PutRequest(namespace=NAMESPACE, id="x", items=[ok, kv.Item(key=b"k" * 1025)])
    yield "namespace", "Put", kv.PutRequest(id="x", items=[ok])
    yield "id", "Get", kv.GetRequest(namespace=NAMESPACE)
    yield "id", "Delete", kv.DeleteRequest(namespace=NAMESPACE)
    yield "mutations", "Mutate", kv.MutateRequest(namespace=NAMESPACE)
    yield "mutations", "Mutate", kv.MutateRequest(namespace=NAMESPACE, mutations=[fine] * 1001)
    yield "id", "CompareAndSwap", kv.CompareAndSwapRequest(namespace=NAMESPACE, key=b"k", absent=kv.Absent())
    yield "expected", "CompareAndSwap", kv.CompareAndSwapRequest(namespace=NAMESPACE, id="x", key=b"k")
    bad_token = kv.Selection(page_token=b"not a token of ours")
    yield "selection.page_token", "Get", kv.GetRequest(namespace=NAMESPACE, id="x", selection=bad_token)


@pytest.mark.parametrize("field, method, request_message", list(requests_with_a_bad_field()), ids=lambda value: str(value)[:40])
def test_invalid_argument_names_the_field(client, field, method, request_message):
    error = refused(getattr(client.kv, method), request_message, timeout=PATIENCE_S)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    violations = status_details(error)["BadRequest"].field_violations
    assert field in [violation.field for violation in violations]
    assert all(violation.description for violation in violations)


def test_a_token_of_another_call_is_refused(client, fresh_id):
    token = common.IdempotencyToken(token=fresh_id.encode()[:64])
    token.generation_time.GetCurrentTime()

    def swap(wanted, **expected):
        request = kv.CompareAndSwapRequest(
            namespace=NAMESPACE, id=fresh_id, key=b"k", idempotency_token=token, item=kv.Item(value=wanted), **expected
        )
        return client.kv.CompareAndSwap(request, timeout=PATIENCE_S)

    assert swap(b"1", absent=kv.Absent()).swapped
    put(client, fresh_id, [(b"k", b"2")])
    for other in (lambda: swap(b"9", absent=kv.Absent()), lambda: swap(b"1", value=b"2")):
        error = refused(other)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert status_details(error)["ErrorInfo"].reason == "TOKEN_REUSED"
        assert "nothing was done" in error.details()
    assert [item.value for item in get(client, fresh_id).items] == [b"2"]
    assert swap(b"1", absent=kv.Absent()).swapped, "the call itself gets its first answer"
    assert [item.value for item in get(client, fresh_id).items] == [b"2"]


@pytest.mark.skipif(DURABILITY != "strong", reason="only the log remembers the tokens of a Put")
def test_a_put_with_the_token_of_another_is_refused(client, fresh_id):
    for time in (True, False):
        token = common.IdempotencyToken(token=f"{fresh_id}{time}".encode()[-64:])
        if time:
            token.generation_time.GetCurrentTime()

        def attempt(value):
            items = [kv.Item(key=b"k", value=value)]
            request = kv.PutRequest(namespace=NAMESPACE, id=fresh_id, idempotency_token=token, items=items)
            return client.kv.Put(request, timeout=PATIENCE_S).result

        first = attempt(b"one")
        error = refused(attempt, b"two")
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert status_details(error)["ErrorInfo"].reason == "TOKEN_REUSED"
        again = attempt(b"one")
        assert (again.lane, again.lsn) == (first.lane, first.lsn)
        assert [item.value for item in get(client, fresh_id).items] == [b"one"]


def test_one_bad_mutation_does_not_hurt_the_others(client, fresh_id):
    fine = kv.PutItems(items=[kv.Item(key=b"k", value=b"v")])
    mutations = [
        kv.Mutation(id=f"{fresh_id}-a", put=fine),
        kv.Mutation(id="", put=fine),
        kv.Mutation(id=f"{fresh_id}-b", put=fine),
    ]
    response = client.kv.Mutate(kv.MutateRequest(namespace=NAMESPACE, mutations=mutations), timeout=PATIENCE_S)
    codes = [result.status.code for result in response.results]
    assert codes == [0, grpc.StatusCode.INVALID_ARGUMENT.value[0], 0]
    assert response.results[1].status.message
    assert len(get(client, f"{fresh_id}-a").items) == 1
    assert len(get(client, f"{fresh_id}-b").items) == 1


def test_a_message_that_is_no_protobuf(client):
    error = refused(
        client.channel.unary_unary("/prism.keyvalue.v1.KeyValue/Put"), b"\x0a\xff\xff\xff\xff\x0f", timeout=PATIENCE_S
    )
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_id_that_is_no_utf8(client):
    raw = b"\x0a" + bytes([len(NAMESPACE)]) + NAMESPACE.encode() + b"\x12\x02\xc3\x28"
    error = refused(client.channel.unary_unary("/prism.keyvalue.v1.KeyValue/Get"), raw, timeout=PATIENCE_S)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
