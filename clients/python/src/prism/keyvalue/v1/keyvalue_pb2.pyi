import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from prism.common.v1 import common_pb2 as _common_pb2
from prism import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPRESSION_UNSPECIFIED: _ClassVar[Compression]
    COMPRESSION_GZIP: _ClassVar[Compression]
    COMPRESSION_ZSTD: _ClassVar[Compression]
    COMPRESSION_LZ4: _ClassVar[Compression]
    COMPRESSION_SNAPPY: _ClassVar[Compression]
COMPRESSION_UNSPECIFIED: Compression
COMPRESSION_GZIP: Compression
COMPRESSION_ZSTD: Compression
COMPRESSION_LZ4: Compression
COMPRESSION_SNAPPY: Compression

class Item(_message.Message):
    __slots__ = ("key", "value", "ttl", "compression", "version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    ttl: _duration_pb2.Duration
    compression: Compression
    version: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., compression: _Optional[_Union[Compression, str]] = ..., version: _Optional[bytes] = ...) -> None: ...

class KeyRange(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ...) -> None: ...

class KeySet(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class All(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Predicate(_message.Message):
    __slots__ = ("all", "keys", "range")
    ALL_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    all: All
    keys: KeySet
    range: KeyRange
    def __init__(self, all: _Optional[_Union[All, _Mapping]] = ..., keys: _Optional[_Union[KeySet, _Mapping]] = ..., range: _Optional[_Union[KeyRange, _Mapping]] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("page_bytes", "item_limit", "page_token")
    PAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ITEM_LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_bytes: int
    item_limit: int
    page_token: bytes
    def __init__(self, page_bytes: _Optional[int] = ..., item_limit: _Optional[int] = ..., page_token: _Optional[bytes] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("namespace", "id", "idempotency_token", "items")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    idempotency_token: _common_pb2.IdempotencyToken
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("namespace", "id", "predicate", "selection")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    predicate: Predicate
    selection: Selection
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., predicate: _Optional[_Union[Predicate, _Mapping]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("items", "next_page_token")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    next_page_token: bytes
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("namespace", "id", "idempotency_token", "predicate")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    idempotency_token: _common_pb2.IdempotencyToken
    predicate: Predicate
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., predicate: _Optional[_Union[Predicate, _Mapping]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("namespace", "selection")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    selection: Selection
    def __init__(self, namespace: _Optional[str] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class ScanEntry(_message.Message):
    __slots__ = ("id", "items")
    ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    id: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ScanEntry]
    next_page_token: bytes
    def __init__(self, entries: _Optional[_Iterable[_Union[ScanEntry, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class PutItems(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class DeleteItems(_message.Message):
    __slots__ = ("predicate",)
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    predicate: Predicate
    def __init__(self, predicate: _Optional[_Union[Predicate, _Mapping]] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("id", "put", "delete")
    ID_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    id: str
    put: PutItems
    delete: DeleteItems
    def __init__(self, id: _Optional[str] = ..., put: _Optional[_Union[PutItems, _Mapping]] = ..., delete: _Optional[_Union[DeleteItems, _Mapping]] = ...) -> None: ...

class MutateRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "mutations")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    mutations: _containers.RepeatedCompositeFieldContainer[Mutation]
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., mutations: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ...) -> None: ...

class MutationResult(_message.Message):
    __slots__ = ("status", "result")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    result: _common_pb2.WriteResult
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class MutateResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[MutationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[MutationResult, _Mapping]]] = ...) -> None: ...

class Absent(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompareAndSwapRequest(_message.Message):
    __slots__ = ("namespace", "id", "key", "idempotency_token", "absent", "value", "version", "item")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    key: bytes
    idempotency_token: _common_pb2.IdempotencyToken
    absent: Absent
    value: bytes
    version: bytes
    item: Item
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., key: _Optional[bytes] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., absent: _Optional[_Union[Absent, _Mapping]] = ..., value: _Optional[bytes] = ..., version: _Optional[bytes] = ..., item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class CompareAndSwapResponse(_message.Message):
    __slots__ = ("swapped", "current", "result")
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    swapped: bool
    current: Item
    result: _common_pb2.WriteResult
    def __init__(self, swapped: _Optional[bool] = ..., current: _Optional[_Union[Item, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...
