"""What calls take and give: plain values, without a connection in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from prism.errors import PrismError

# Keys and values of items: bytes, or str that is sent as UTF-8.
Bytes = bytes | str
# Where a subscription begins: its client's creation time where none is given.
Start = Literal["latest", "earliest"] | datetime


@dataclass(frozen=True)
class Settings:
    """How a client behaves. All its views and calls share it."""

    # Seconds for a call, all its tries together.
    timeout: float = 10.0
    # How often a call is sent at the most, where a gateway refuses it for a while.
    tries: int = 4
    # Values and payloads above so many bytes are compressed; None: never.
    compress_above: int | None = 16 << 10
    # Give compressed values back decompressed.
    decompress: bool = True
    # A value may be so many bytes long once decompressed.
    decompressed_max: int = 64 << 20


@dataclass(frozen=True)
class Tls:
    """Contents of the files for gateways with TLS, in PEM; None: there is none."""

    # Certificates that sign the gateways'; None: those that grpcio brings.
    ca: bytes | None = None
    # The client's own certificate, and its private key.
    cert: bytes | None = None
    cert_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Token:
    """Names a write. The same call with the same token has one effect, however often it is sent."""

    # 1 to 64 bytes, unique among the writes of a namespace.
    value: bytes
    # When it was made, nanoseconds since 1970. Of two writes to an item the one with the later time stays.
    time_ns: int


@dataclass(frozen=True)
class WriteResult:
    """What a write's acknowledgement promises."""

    # "best-effort", "eventual" or "strong".
    durability: str
    # The record's place in the gateway's log; 0 where the answer did not wait for it.
    lane: int
    lsn: int
    # Whether the store had the write already. Reads see it either way.
    applied: bool


# --- KeyValue


@dataclass(frozen=True)
class Item:
    """A key and its value, as a read found them."""

    key: bytes
    # As it is stored, compressed perhaps.
    raw_value: bytes
    # Seconds that are left; None: it stays.
    ttl: float | None = None
    # Names this very state of the item, for compare_and_swap. Opaque.
    version: bytes = b""
    # "", "gzip", "zstd", "lz4" or "snappy".
    compression: str = ""
    # The most that `value` may become by decompression; None: `value` is the raw value.
    decompressed_max: int | None = field(default=None, repr=False, compare=False)

    @cached_property
    def value(self) -> bytes:
        """The value, decompressed. Raises UnusablePayload where that cannot be done."""
        from prism._core.keyvalue import value_of

        return value_of(self)


@dataclass(frozen=True)
class Swap:
    """The verdict on a compare_and_swap. True where the swap took place."""

    swapped: bool
    # Where it did not: the item as it is; None if there is none.
    current: Item | None
    result: WriteResult

    def __bool__(self) -> bool:
        return self.swapped


@dataclass(frozen=True)
class Put:
    """A mutation that writes items under an id."""

    id: str
    items: Mapping[Bytes, Bytes]
    # Seconds.
    ttl: float | None = None


@dataclass(frozen=True)
class Delete:
    """A mutation that deletes items of an id: these keys, those from `start` up to `end`, or with `all=True` all of them."""

    id: str
    keys: Sequence[Bytes] = ()
    start: Bytes = b""
    end: Bytes = b""
    all: bool = False


@dataclass(frozen=True)
class Done:
    """What became of one part of a batch. True where it was done."""

    error: PrismError | None
    result: WriteResult | None
    # Of messages: the id under which they are delivered.
    id: bytes = b""

    def __bool__(self) -> bool:
        return self.error is None


# --- PubSub and Queue


@dataclass(frozen=True)
class Message:
    """A message to publish or send, where more than its data is to be said."""

    # bytes, str, a protobuf message, or what JSON can hold.
    data: Any
    # PubSub: tokens joined by dots; empty: the namespace's own topic.
    topic: str = ""
    # The ordering key; only where the namespace is `ordered`.
    key: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    # Queue: seconds before which nobody gets it.
    delay: float | None = None
    # Queue: how often it is given to a worker before it is dead; 0: 10.
    attempts_max: int = 0


@dataclass(frozen=True)
class Published:
    """A message that was published or sent."""

    id: bytes
    result: WriteResult


@dataclass(frozen=True)
class Received:
    """What events and work items have in common: a payload with its attributes."""

    id: bytes
    # As they are stored, compressed perhaps.
    raw_payload: bytes
    raw_attributes: Mapping[str, str]
    # The ordering key.
    key: str
    decompressed_max: int | None = field(repr=False, compare=False)

    @cached_property
    def payload(self) -> bytes:
        """The payload, decompressed. Raises UnusablePayload where that cannot be done."""
        from prism._core.received import payload_of

        return payload_of(self)

    @cached_property
    def attributes(self) -> dict[str, str]:
        """The attributes that belong to `payload`."""
        from prism._core.received import attributes_of

        return attributes_of(self)

    @cached_property
    def data(self) -> Any:
        """The payload as its content type says: what JSON holds, str for text, else bytes."""
        from prism._core.content import TYPE, to_object

        return to_object(self.payload, self.attributes.get(TYPE, ""))

    def json(self) -> Any:
        """The payload read as JSON, whatever its content type says."""
        return json.loads(self.payload)

    def __getitem__(self, name: Any) -> Any:
        return self.json()[name]

    def __str__(self) -> str:
        return str(self.data)


@dataclass(frozen=True)
class Gap:
    """Messages that retention removed before this subscriber had them."""

    # How many; 0: the store cannot tell.
    messages: int
    oldest_left: datetime | None


@dataclass(frozen=True)
class Event(Received):
    """A message that a subscriber got. `event["name"]` looks into its JSON; `str(event)` is its data."""

    topic: str = ""
    # When the store took it, by the store's clock.
    time: datetime | None = None
    # For `subscribe(after=…)`: nothing after this event is left out. Where others came with this one in an answer of
    # the gateway, a few of them may come again. Opaque.
    position: bytes = b""
    # Set where messages are missing before this one.
    gap: Gap | None = None

    # A dataclass would print the fields.
    __str__ = Received.__str__


@dataclass(frozen=True)
class Work(Received):
    """A message of a queue that this worker has for a while."""

    # For ack, nack and extend; good for this attempt only.
    receipt: bytes = b""
    # Counts from 1.
    attempt: int = 1
    # Why the attempt before failed.
    last_failure: str = ""
    sent: datetime | None = None
    lease_end: datetime | None = None

    __str__ = Received.__str__


@dataclass(frozen=True)
class Settled:
    """What became of a receipt that was acked, nacked or extended. True where it counted."""

    error: PrismError | None
    # Of a nack: "DELAYED", "READY" or "DEAD".
    state: str = ""
    # Of an extend.
    lease_end: datetime | None = None

    def __bool__(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Stats:
    """How many messages a queue has in each state ("READY", "DELAYED", "LEASED", "DEAD", "DONE")."""

    messages: Mapping[str, int]
    oldest: Mapping[str, datetime]


# --- Administration


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a namespace file."""

    field: str
    description: str
    suggestion: str
    # From 1; 0: unknown.
    line: int


@dataclass(frozen=True)
class Namespace:
    """What a namespace is."""

    name: str
    team: str
    client_api: str
    durability: str
    # The store that serves it, for example `SQLite table "user-sessions"`.
    backend: str
    # "provisioning", "active", "updating" or "deleting".
    state: str
    version: int
    yaml: str
    created: datetime | None
    # Why it is not active yet.
    trouble: str
