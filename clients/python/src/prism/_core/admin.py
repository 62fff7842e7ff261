"""Administration of namespaces."""

from __future__ import annotations

from prism._core import methods
from prism._core.call import Core, unary
from prism._core.effects import Emit, Operation
from prism._core.received import time_of
from prism.admin.v1 import namespaces_pb2 as pb
from prism.types import Namespace, Problem


def _namespace_of(message: pb.Namespace) -> Namespace:
    return Namespace(
        name=message.name,
        team=message.team,
        client_api=message.client_api,
        durability=message.durability,
        backend=message.backend,
        state=message.state,
        version=message.version,
        yaml=message.yaml,
        created=time_of(message.create_time) if message.HasField("create_time") else None,
        trouble=message.trouble,
    )


def validate(core: Core, yaml: str, timeout: float | None) -> Operation[list[Problem]]:
    request = pb.ValidateRequest(yaml=yaml)
    answer = yield from unary(core, methods.VALIDATE_NAMESPACE, request, pb.ValidateResponse, timeout)
    return [Problem(each.field, each.description, each.suggestion, each.line) for each in answer.problems]


def create(core: Core, yaml: str, timeout: float | None) -> Operation[Namespace]:
    request = pb.CreateRequest(yaml=yaml)
    answer = yield from unary(core, methods.CREATE_NAMESPACE, request, pb.CreateResponse, timeout)
    return _namespace_of(answer.namespace)


def update(core: Core, yaml: str, base_version: int, timeout: float | None) -> Operation[Namespace]:
    request = pb.UpdateRequest(yaml=yaml, base_version=base_version)
    answer = yield from unary(core, methods.UPDATE_NAMESPACE, request, pb.UpdateResponse, timeout)
    return _namespace_of(answer.namespace)


def get(core: Core, name: str, timeout: float | None) -> Operation[Namespace]:
    request = pb.GetRequest(name=name)
    answer = yield from unary(core, methods.GET_NAMESPACE, request, pb.GetResponse, timeout)
    return _namespace_of(answer.namespace)


def list_all(core: Core, timeout: float | None) -> Operation[None]:
    """Emits all namespaces in the order of their names."""
    request = pb.ListRequest(page_size=1000)
    while True:
        answer = yield from unary(core, methods.LIST_NAMESPACES, request, pb.ListResponse, timeout)
        for each in answer.namespaces:
            yield Emit(_namespace_of(each))
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def delete(core: Core, name: str, timeout: float | None) -> Operation[None]:
    request = pb.DeleteRequest(name=name)
    yield from unary(core, methods.DELETE_NAMESPACE, request, pb.DeleteResponse, timeout)
