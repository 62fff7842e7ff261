"""The services beside KeyValue, through grpcio: Namespaces, health checking, server reflection."""

import grpc
import pytest
from conftest import NAMESPACE, PATIENCE_S, namespace_yaml, status_details
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prism.admin.v1 import namespaces_pb2 as admin
from prism.keyvalue.v1 import keyvalue_pb2 as kv

SERVICES = {
    "prism.keyvalue.v1.KeyValue",
    "prism.admin.v1.Namespaces",
    "grpc.health.v1.Health",
}


def test_a_namespace_from_creation_to_deletion(client):
    name = "py-life"
    created = client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S).namespace
    assert (created.name, created.client_api, created.durability) == (name, "keyvalue", "best-effort")
    assert created.backend and created.create_time.seconds > 0
    with pytest.raises(grpc.RpcError) as caught:
        client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert f'Namespace "{name}" already exists' in caught.value.details()
    assert client.namespaces.Get(admin.GetRequest(name=name), timeout=PATIENCE_S).namespace == created
    listed = client.namespaces.List(admin.ListRequest(page_size=1000), timeout=PATIENCE_S).namespaces
    assert {name, NAMESPACE} <= {namespace.name for namespace in listed}
    item = kv.Item(key=b"k", value=b"v")
    client.kv.Put(kv.PutRequest(namespace=name, id="x", items=[item]), timeout=PATIENCE_S)
    client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)
    with pytest.raises(grpc.RpcError) as caught:
        client.kv.Get(kv.GetRequest(namespace=name, id="x"), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S)
    again = client.kv.Get(kv.GetRequest(namespace=name, id="x"), timeout=PATIENCE_S)
    assert not again.items, "a namespace made anew does not see the data of its predecessor"
    client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)


def test_a_batch_is_created_whole_or_not_at_all(client):
    names = [f"py-batch-{n}" for n in range(20)]
    yamls = [namespace_yaml(name) for name in names]
    wrong = yamls[:5] + ["namespace: [1, 2", namespace_yaml(NAMESPACE), yamls[0]]
    refused = client.namespaces.CreateBatch(admin.CreateBatchRequest(yamls=wrong), timeout=PATIENCE_S).results
    codes = [grpc_code(result.status) for result in refused]
    invalid, exists = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS
    assert codes == [grpc.StatusCode.ABORTED] * 5 + [invalid, exists, invalid]
    assert not any(result.HasField("namespace") for result in refused)
    listed = client.namespaces.List(admin.ListRequest(page_size=1000), timeout=PATIENCE_S).namespaces
    assert not {namespace.name for namespace in listed} & set(names), "nothing was done"
    created = client.namespaces.CreateBatch(admin.CreateBatchRequest(yamls=yamls), timeout=PATIENCE_S).results
    assert [result.namespace.name for result in created] == names
    assert all(result.status.code == 0 and result.namespace.state == "active" for result in created)
    item = kv.Item(key=b"k", value=b"v")
    for name in names:
        client.kv.Put(kv.PutRequest(namespace=name, id="x", items=[item]), timeout=PATIENCE_S)
    again = client.namespaces.CreateBatch(admin.CreateBatchRequest(yamls=yamls), timeout=PATIENCE_S).results
    assert {grpc_code(result.status) for result in again} == {grpc.StatusCode.ALREADY_EXISTS}
    for name in names:
        client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)


def grpc_code(status):
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_the_wrong_size_is_refused(client, count):
    yamls = [namespace_yaml(f"py-size-{n}") for n in range(count)]
    with pytest.raises(grpc.RpcError) as caught:
        client.namespaces.CreateBatch(admin.CreateBatchRequest(yamls=yamls), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"yamls holds {count} files; allowed: 1 to 1000" in caught.value.details()


def test_an_update_makes_the_next_version(client):
    name = "py-update"
    client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S)
    item = kv.Item(key=b"k", value=b"v" * 100)
    put = kv.PutRequest(namespace=name, id="x", items=[item])
    client.kv.Put(put, timeout=PATIENCE_S)
    smaller = namespace_yaml(name).replace("8MB", "10B")
    update = admin.UpdateRequest(yaml=smaller, base_version=1)
    updated = client.namespaces.Update(update, timeout=PATIENCE_S).namespace
    assert (updated.version, updated.state, updated.yaml) == (2, "active", smaller)
    with pytest.raises(grpc.RpcError) as caught:
        client.kv.Put(put, timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, "the new file holds for the next call"
    got = client.kv.Get(kv.GetRequest(namespace=name, id="x"), timeout=PATIENCE_S)
    assert got.items[0].value == item.value, "what is stored stays"
    with pytest.raises(grpc.RpcError) as caught:
        client.namespaces.Update(update, timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.ABORTED
    strong = admin.UpdateRequest(yaml=namespace_yaml(name).replace("best-effort", "strong"))
    with pytest.raises(grpc.RpcError) as caught:
        client.namespaces.Update(strong, timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert status_details(caught.value)["ErrorInfo"].reason == "IMMUTABLE_FIELD"
    client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)


def test_list_page_by_page(client):
    names = [f"py-list-{n}" for n in range(5)]
    for name in names:
        client.namespaces.Create(admin.CreateRequest(yaml=namespace_yaml(name)), timeout=PATIENCE_S)
    found, token = [], b""
    for _ in range(100):
        page = client.namespaces.List(admin.ListRequest(page_size=2, page_token=token), timeout=PATIENCE_S)
        assert len(page.namespaces) <= 2
        found += [namespace.name for namespace in page.namespaces]
        token = page.next_page_token
        if not token:
            break
    assert not token
    assert found == sorted(found) and set(names) <= set(found)
    for name in names:
        client.namespaces.Delete(admin.DeleteRequest(name=name), timeout=PATIENCE_S)


def test_validate_reports_every_problem(client):
    yaml = namespace_yaml("py-bad").replace("durability: best-effort", "durabilty: best-effort\n  write_rps: many")
    problems = client.namespaces.Validate(admin.ValidateRequest(yaml=yaml), timeout=PATIENCE_S).problems
    fields = {problem.field: problem for problem in problems}
    assert "durability" in fields["needs.durabilty"].suggestion
    assert fields["needs.write_rps"].description
    fine = client.namespaces.Validate(admin.ValidateRequest(yaml=namespace_yaml("py-ok")), timeout=PATIENCE_S)
    assert not fine.problems


def test_create_of_a_bad_file_names_the_fields(client):
    with pytest.raises(grpc.RpcError) as caught:
        client.namespaces.Create(admin.CreateRequest(yaml="namespace: [1, 2"), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert status_details(caught.value)["BadRequest"].field_violations


def test_health(client):
    health = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "prism.keyvalue.v1.KeyValue"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=PATIENCE_S).status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(request, timeout=PATIENCE_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="nope"), timeout=PATIENCE_S)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


# The two published versions differ in nothing but the package's name.
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(client, version):
    ask = client.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services="*"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="prism.keyvalue.v1.KeyValue"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="prism/common/v1/common.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="prism.keyvalue.v1.Nope"),
    ]
    services, by_symbol, by_name, missing = ask(iter(requests), timeout=PATIENCE_S)
    reflection = f"grpc.reflection.{version}.ServerReflection"
    assert SERVICES | {reflection} <= {service.name for service in services.list_services_response.service}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in by_symbol.file_descriptor_response.file_descriptor_proto
    ]
    assert "prism/keyvalue/v1/keyvalue.proto" in [file.name for file in files]
    (common, *_) = by_name.file_descriptor_response.file_descriptor_proto
    assert descriptor_pb2.FileDescriptorProto.FromString(common).package == "prism.common.v1"
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_through_the_library(client):
    """grpcio's own reflection client resolves the service with all that it needs."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))
    service = pool.FindServiceByName("prism.keyvalue.v1.KeyValue")
    assert {method.name for method in service.methods} == {
        "Put", "Get", "Delete", "Scan", "Mutate", "CompareAndSwap",
    }  # fmt: skip
    assert service.methods_by_name["Scan"].server_streaming
    assert service.methods_by_name["Put"].input_type.fields_by_name["items"].message_type.name == "Item"
