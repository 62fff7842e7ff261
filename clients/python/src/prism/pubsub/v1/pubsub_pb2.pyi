import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
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

class Start(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_UNSPECIFIED: _ClassVar[Start]
    START_LATEST: _ClassVar[Start]
    START_EARLIEST: _ClassVar[Start]
START_UNSPECIFIED: Start
START_LATEST: Start
START_EARLIEST: Start

class Message(_message.Message):
    __slots__ = ("topic", "payload", "ordering_key", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ORDERING_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    payload: bytes
    ordering_key: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, topic: _Optional[str] = ..., payload: _Optional[bytes] = ..., ordering_key: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "message")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    message: Message
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., message: _Optional[_Union[Message, _Mapping]] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("result", "message_id")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    message_id: bytes
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., message_id: _Optional[bytes] = ...) -> None: ...

class PublishBatchRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "messages")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class PublishResult(_message.Message):
    __slots__ = ("status", "result", "message_id")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    result: _common_pb2.WriteResult
    message_id: bytes
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., message_id: _Optional[bytes] = ...) -> None: ...

class PublishBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...

class StartAt(_message.Message):
    __slots__ = ("start", "time", "position")
    START_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    start: Start
    time: _timestamp_pb2.Timestamp
    position: bytes
    def __init__(self, start: _Optional[_Union[Start, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., position: _Optional[bytes] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("namespace", "topics", "start", "group", "batch_messages", "batch_bytes", "uncommitted_messages_max", "commit_timeout")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    BATCH_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    BATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNCOMMITTED_MESSAGES_MAX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    topics: _containers.RepeatedScalarFieldContainer[str]
    start: StartAt
    group: str
    batch_messages: int
    batch_bytes: int
    uncommitted_messages_max: int
    commit_timeout: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., topics: _Optional[_Iterable[str]] = ..., start: _Optional[_Union[StartAt, _Mapping]] = ..., group: _Optional[str] = ..., batch_messages: _Optional[int] = ..., batch_bytes: _Optional[int] = ..., uncommitted_messages_max: _Optional[int] = ..., commit_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReceivedMessage(_message.Message):
    __slots__ = ("id", "message", "store_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STORE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    message: Message
    store_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[bytes] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., store_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("messages", "oldest_left_time")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_LEFT_TIME_FIELD_NUMBER: _ClassVar[int]
    messages: int
    oldest_left_time: _timestamp_pb2.Timestamp
    def __init__(self, messages: _Optional[int] = ..., oldest_left_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("messages", "position", "gap", "waiting_for_commit")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_COMMIT_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ReceivedMessage]
    position: bytes
    gap: Gap
    waiting_for_commit: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[ReceivedMessage, _Mapping]]] = ..., position: _Optional[bytes] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., waiting_for_commit: _Optional[bool] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "group", "position")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    group: str
    position: bytes
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., group: _Optional[str] = ..., position: _Optional[bytes] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: bytes
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[bytes] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "topics", "subscribers", "partitions", "partitions_held", "messages_behind", "oldest_behind_time", "last_commit_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_HELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_BEHIND_FIELD_NUMBER: _ClassVar[int]
    OLDEST_BEHIND_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    topics: _containers.RepeatedScalarFieldContainer[str]
    subscribers: int
    partitions: int
    partitions_held: int
    messages_behind: int
    oldest_behind_time: _timestamp_pb2.Timestamp
    last_commit_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., topics: _Optional[_Iterable[str]] = ..., subscribers: _Optional[int] = ..., partitions: _Optional[int] = ..., partitions_held: _Optional[int] = ..., messages_behind: _Optional[int] = ..., oldest_behind_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups", "next_page_token")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    next_page_token: bytes
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class ResetGroupRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "group", "start", "topics")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    group: str
    start: StartAt
    topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., group: _Optional[str] = ..., start: _Optional[_Union[StartAt, _Mapping]] = ..., topics: _Optional[_Iterable[str]] = ...) -> None: ...

class ResetGroupResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "group")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    group: str
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., group: _Optional[str] = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...
