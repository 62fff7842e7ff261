import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from prism import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Problem(_message.Message):
    __slots__ = ("field", "description", "suggestion", "line")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    field: str
    description: str
    suggestion: str
    line: int
    def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ..., suggestion: _Optional[str] = ..., line: _Optional[int] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("name", "team", "client_api", "durability", "backend", "create_time", "yaml", "state", "version", "trouble")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    CLIENT_API_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    team: str
    client_api: str
    durability: str
    backend: str
    create_time: _timestamp_pb2.Timestamp
    yaml: str
    state: str
    version: int
    trouble: str
    def __init__(self, name: _Optional[str] = ..., team: _Optional[str] = ..., client_api: _Optional[str] = ..., durability: _Optional[str] = ..., backend: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., yaml: _Optional[str] = ..., state: _Optional[str] = ..., version: _Optional[int] = ..., trouble: _Optional[str] = ...) -> None: ...

class ValidateRequest(_message.Message):
    __slots__ = ("yaml",)
    YAML_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    def __init__(self, yaml: _Optional[str] = ...) -> None: ...

class ValidateResponse(_message.Message):
    __slots__ = ("problems",)
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    def __init__(self, problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("yaml",)
    YAML_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    def __init__(self, yaml: _Optional[str] = ...) -> None: ...

class CreateResponse(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class CreateBatchRequest(_message.Message):
    __slots__ = ("yamls",)
    YAMLS_FIELD_NUMBER: _ClassVar[int]
    yamls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, yamls: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CreateBatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CreateBatchResult, _Mapping]]] = ...) -> None: ...

class CreateBatchResult(_message.Message):
    __slots__ = ("status", "namespace")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    namespace: Namespace
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("yaml", "base_version")
    YAML_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    base_version: int
    def __init__(self, yaml: _Optional[str] = ..., base_version: _Optional[int] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: bytes
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[bytes] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("namespaces", "next_page_token")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    next_page_token: bytes
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("yaml",)
    YAML_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    def __init__(self, yaml: _Optional[str] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("yaml", "plan")
    YAML_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    plan: str
    def __init__(self, yaml: _Optional[str] = ..., plan: _Optional[str] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("namespace", "action")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    action: str
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., action: _Optional[str] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("namespace", "action", "hash", "base_version", "store", "backend", "decisions", "changes", "rejected", "assumed", "warnings", "bytes_max", "cost", "steps")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    action: str
    hash: str
    base_version: int
    store: str
    backend: str
    decisions: _containers.RepeatedCompositeFieldContainer[PlanDecision]
    changes: _containers.RepeatedCompositeFieldContainer[PlanChange]
    rejected: _containers.RepeatedCompositeFieldContainer[PlanRejection]
    assumed: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    bytes_max: int
    cost: _containers.RepeatedScalarFieldContainer[str]
    steps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., action: _Optional[str] = ..., hash: _Optional[str] = ..., base_version: _Optional[int] = ..., store: _Optional[str] = ..., backend: _Optional[str] = ..., decisions: _Optional[_Iterable[_Union[PlanDecision, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[PlanChange, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[PlanRejection, _Mapping]]] = ..., assumed: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ..., bytes_max: _Optional[int] = ..., cost: _Optional[_Iterable[str]] = ..., steps: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanDecision(_message.Message):
    __slots__ = ("title", "field", "value", "rule", "because", "reason")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    title: str
    field: str
    value: str
    rule: str
    because: str
    reason: str
    def __init__(self, title: _Optional[str] = ..., field: _Optional[str] = ..., value: _Optional[str] = ..., rule: _Optional[str] = ..., because: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PlanChange(_message.Message):
    __slots__ = ("field", "title", "before", "after")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    field: str
    title: str
    before: str
    after: str
    def __init__(self, field: _Optional[str] = ..., title: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class PlanRejection(_message.Message):
    __slots__ = ("store", "title", "rule", "reason")
    STORE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    store: str
    title: str
    rule: str
    reason: str
    def __init__(self, store: _Optional[str] = ..., title: _Optional[str] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("name", "status", "reason", "backend", "streams", "write_rps", "read_rps", "write_rps_declared", "read_rps_declared", "data_size_declared", "p50_seconds", "p99_seconds", "errors", "calls", "write_rps_peak", "read_rps_peak", "peak_since", "limited")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    WRITE_RPS_FIELD_NUMBER: _ClassVar[int]
    READ_RPS_FIELD_NUMBER: _ClassVar[int]
    WRITE_RPS_DECLARED_FIELD_NUMBER: _ClassVar[int]
    READ_RPS_DECLARED_FIELD_NUMBER: _ClassVar[int]
    DATA_SIZE_DECLARED_FIELD_NUMBER: _ClassVar[int]
    P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P99_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WRITE_RPS_PEAK_FIELD_NUMBER: _ClassVar[int]
    READ_RPS_PEAK_FIELD_NUMBER: _ClassVar[int]
    PEAK_SINCE_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    reason: str
    backend: str
    streams: int
    write_rps: float
    read_rps: float
    write_rps_declared: int
    read_rps_declared: int
    data_size_declared: int
    p50_seconds: float
    p99_seconds: float
    errors: int
    calls: int
    write_rps_peak: float
    read_rps_peak: float
    peak_since: _timestamp_pb2.Timestamp
    limited: int
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., backend: _Optional[str] = ..., streams: _Optional[int] = ..., write_rps: _Optional[float] = ..., read_rps: _Optional[float] = ..., write_rps_declared: _Optional[int] = ..., read_rps_declared: _Optional[int] = ..., data_size_declared: _Optional[int] = ..., p50_seconds: _Optional[float] = ..., p99_seconds: _Optional[float] = ..., errors: _Optional[int] = ..., calls: _Optional[int] = ..., write_rps_peak: _Optional[float] = ..., read_rps_peak: _Optional[float] = ..., peak_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., limited: _Optional[int] = ...) -> None: ...
