from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Permission(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PERMISSION_UNSPECIFIED: _ClassVar[Permission]
    PERMISSION_READ: _ClassVar[Permission]
    PERMISSION_WRITE: _ClassVar[Permission]
    PERMISSION_ADMIN: _ClassVar[Permission]

class Effect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_UNSPECIFIED: _ClassVar[Effect]
    EFFECT_NONE: _ClassVar[Effect]
    EFFECT_CERTAIN: _ClassVar[Effect]
    EFFECT_JUDGED: _ClassVar[Effect]
    EFFECT_DIRECT: _ClassVar[Effect]
PERMISSION_UNSPECIFIED: Permission
PERMISSION_READ: Permission
PERMISSION_WRITE: Permission
PERMISSION_ADMIN: Permission
EFFECT_UNSPECIFIED: Effect
EFFECT_NONE: Effect
EFFECT_CERTAIN: Effect
EFFECT_JUDGED: Effect
EFFECT_DIRECT: Effect
PII_FIELD_NUMBER: _ClassVar[int]
pii: _descriptor.FieldDescriptor
ENCRYPT_AT_REST_FIELD_NUMBER: _ClassVar[int]
encrypt_at_rest: _descriptor.FieldDescriptor
MASK_IN_LOGS_FIELD_NUMBER: _ClassVar[int]
mask_in_logs: _descriptor.FieldDescriptor
ACCESS_AUDIT_FIELD_NUMBER: _ClassVar[int]
access_audit: _descriptor.FieldDescriptor
DATA_SUBJECT_FIELD_NUMBER: _ClassVar[int]
data_subject: _descriptor.FieldDescriptor
ACCESS_PATTERN_FIELD_NUMBER: _ClassVar[int]
access_pattern: _descriptor.FieldDescriptor
ESTIMATED_WRITE_RPS_FIELD_NUMBER: _ClassVar[int]
estimated_write_rps: _descriptor.FieldDescriptor
ESTIMATED_READ_RPS_FIELD_NUMBER: _ClassVar[int]
estimated_read_rps: _descriptor.FieldDescriptor
RETENTION_DAYS_FIELD_NUMBER: _ClassVar[int]
retention_days: _descriptor.FieldDescriptor
CALL_FIELD_NUMBER: _ClassVar[int]
call: _descriptor.FieldDescriptor

class Call(_message.Message):
    __slots__ = ("permissions", "effect")
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    permissions: _containers.RepeatedScalarFieldContainer[Permission]
    effect: Effect
    def __init__(self, permissions: _Optional[_Iterable[_Union[Permission, str]]] = ..., effect: _Optional[_Union[Effect, str]] = ...) -> None: ...
