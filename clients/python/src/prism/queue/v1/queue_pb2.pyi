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

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_READY: _ClassVar[State]
    STATE_DELAYED: _ClassVar[State]
    STATE_LEASED: _ClassVar[State]
    STATE_DEAD: _ClassVar[State]
    STATE_DONE: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_READY: State
STATE_DELAYED: State
STATE_LEASED: State
STATE_DEAD: State
STATE_DONE: State

class Message(_message.Message):
    __slots__ = ("payload", "ordering_key", "attributes", "delay", "attempts_max")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ORDERING_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    ordering_key: str
    attributes: _containers.ScalarMap[str, str]
    delay: _duration_pb2.Duration
    attempts_max: int
    def __init__(self, payload: _Optional[bytes] = ..., ordering_key: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempts_max: _Optional[int] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "message")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    message: Message
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., message: _Optional[_Union[Message, _Mapping]] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("result", "message_id")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    message_id: bytes
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., message_id: _Optional[bytes] = ...) -> None: ...

class SendBatchRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "messages")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class SendResult(_message.Message):
    __slots__ = ("status", "result", "message_id")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    result: _common_pb2.WriteResult
    message_id: bytes
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., message_id: _Optional[bytes] = ...) -> None: ...

class SendBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SendResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SendResult, _Mapping]]] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "messages_max", "wait", "lease")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_MAX_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    messages_max: int
    wait: _duration_pb2.Duration
    lease: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., messages_max: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReceivedMessage(_message.Message):
    __slots__ = ("message_id", "message", "receipt", "attempt", "lease_end_time", "send_time", "last_failure")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LEASE_END_TIME_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    message_id: bytes
    message: Message
    receipt: bytes
    attempt: int
    lease_end_time: _timestamp_pb2.Timestamp
    send_time: _timestamp_pb2.Timestamp
    last_failure: str
    def __init__(self, message_id: _Optional[bytes] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., receipt: _Optional[bytes] = ..., attempt: _Optional[int] = ..., lease_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_failure: _Optional[str] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ReceivedMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ReceivedMessage, _Mapping]]] = ...) -> None: ...

class AckRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "receipts")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., receipts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AckResult(_message.Message):
    __slots__ = ("status", "result")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    result: _common_pb2.WriteResult
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class AckResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AckResult]
    def __init__(self, results: _Optional[_Iterable[_Union[AckResult, _Mapping]]] = ...) -> None: ...

class NackRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "receipts", "delay", "reason", "dead", "uncounted")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    delay: _duration_pb2.Duration
    reason: str
    dead: bool
    uncounted: bool
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., receipts: _Optional[_Iterable[bytes]] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., dead: _Optional[bool] = ..., uncounted: _Optional[bool] = ...) -> None: ...

class NackResult(_message.Message):
    __slots__ = ("status", "result", "state")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    result: _common_pb2.WriteResult
    state: State
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ...) -> None: ...

class NackResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[NackResult]
    def __init__(self, results: _Optional[_Iterable[_Union[NackResult, _Mapping]]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "receipts", "lease")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    lease: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., receipts: _Optional[_Iterable[bytes]] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExtendResult(_message.Message):
    __slots__ = ("status", "lease_end_time")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LEASE_END_TIME_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    lease_end_time: _timestamp_pb2.Timestamp
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., lease_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ExtendResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ExtendResult, _Mapping]]] = ...) -> None: ...

class PeekRequest(_message.Message):
    __slots__ = ("namespace", "states", "ordering_key", "page_size", "page_token", "without_payload")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    ORDERING_KEY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    states: _containers.RepeatedScalarFieldContainer[State]
    ordering_key: str
    page_size: int
    page_token: bytes
    without_payload: bool
    def __init__(self, namespace: _Optional[str] = ..., states: _Optional[_Iterable[_Union[State, str]]] = ..., ordering_key: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[bytes] = ..., without_payload: _Optional[bool] = ...) -> None: ...

class PeekedMessage(_message.Message):
    __slots__ = ("message_id", "message", "state", "attempt", "send_time", "state_time", "last_failure")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    message_id: bytes
    message: Message
    state: State
    attempt: int
    send_time: _timestamp_pb2.Timestamp
    state_time: _timestamp_pb2.Timestamp
    last_failure: str
    def __init__(self, message_id: _Optional[bytes] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ..., attempt: _Optional[int] = ..., send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_failure: _Optional[str] = ...) -> None: ...

class PeekResponse(_message.Message):
    __slots__ = ("messages", "next_page_token")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[PeekedMessage]
    next_page_token: bytes
    def __init__(self, messages: _Optional[_Iterable[_Union[PeekedMessage, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class MessageIds(_message.Message):
    __slots__ = ("message_ids",)
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    message_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, message_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RedriveRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "ids", "state")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    ids: MessageIds
    state: State
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., ids: _Optional[_Union[MessageIds, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ...) -> None: ...

class RedriveResponse(_message.Message):
    __slots__ = ("result", "redriven", "more")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REDRIVEN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    redriven: int
    more: bool
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., redriven: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("namespace", "idempotency_token", "ids", "state")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    idempotency_token: _common_pb2.IdempotencyToken
    ids: MessageIds
    state: State
    def __init__(self, namespace: _Optional[str] = ..., idempotency_token: _Optional[_Union[_common_pb2.IdempotencyToken, _Mapping]] = ..., ids: _Optional[_Union[MessageIds, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("result", "deleted", "more")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.WriteResult
    deleted: int
    more: bool
    def __init__(self, result: _Optional[_Union[_common_pb2.WriteResult, _Mapping]] = ..., deleted: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "messages", "oldest_send_time")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    state: State
    messages: int
    oldest_send_time: _timestamp_pb2.Timestamp
    def __init__(self, state: _Optional[_Union[State, str]] = ..., messages: _Optional[int] = ..., oldest_send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[StateCount]
    def __init__(self, states: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ...) -> None: ...
