import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from prism import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeadLetter(_message.Message):
    __slots__ = ("number", "namespace", "lane", "lsn", "time", "reason", "method", "id", "bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    namespace: str
    lane: int
    lsn: int
    time: _timestamp_pb2.Timestamp
    reason: str
    method: str
    id: str
    bytes: int
    def __init__(self, number: _Optional[int] = ..., namespace: _Optional[str] = ..., lane: _Optional[int] = ..., lsn: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., method: _Optional[str] = ..., id: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class DeadLettersListRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "after")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    after: int
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class DeadLettersListResponse(_message.Message):
    __slots__ = ("dead_letters", "next_after")
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    next_after: int
    def __init__(self, dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., next_after: _Optional[int] = ...) -> None: ...

class DeadLettersGetRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class DeadLettersGetResponse(_message.Message):
    __slots__ = ("dead_letter", "request")
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    dead_letter: DeadLetter
    request: bytes
    def __init__(self, dead_letter: _Optional[_Union[DeadLetter, _Mapping]] = ..., request: _Optional[bytes] = ...) -> None: ...

class DeadLettersRedriveRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class DeadLettersRedriveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeadLettersDropRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class DeadLettersDropResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
