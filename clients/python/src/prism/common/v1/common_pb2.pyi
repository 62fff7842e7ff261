import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_BEST_EFFORT: _ClassVar[Durability]
    DURABILITY_EVENTUAL: _ClassVar[Durability]
    DURABILITY_STRONG: _ClassVar[Durability]
DURABILITY_UNSPECIFIED: Durability
DURABILITY_BEST_EFFORT: Durability
DURABILITY_EVENTUAL: Durability
DURABILITY_STRONG: Durability

class IdempotencyToken(_message.Message):
    __slots__ = ("generation_time", "token")
    GENERATION_TIME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    generation_time: _timestamp_pb2.Timestamp
    token: bytes
    def __init__(self, generation_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., token: _Optional[bytes] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("durability", "lane", "lsn", "applied")
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    durability: Durability
    lane: int
    lsn: int
    applied: bool
    def __init__(self, durability: _Optional[_Union[Durability, str]] = ..., lane: _Optional[int] = ..., lsn: _Optional[int] = ..., applied: _Optional[bool] = ...) -> None: ...
