"""What may go wrong: one type for each reason that the gateway gives, with what to do about it.

Every error is a PrismError. The reasons are those of the table in docs/API.md; a test holds the two together. A reason
that this version does not know comes as a plain PrismError with its `reason`.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prism.types import Problem, Token


class Repeat(enum.Enum):
    """Whether the client may send a call again by itself after an error."""

    # The same call would fail again, or people must decide.
    NEVER = "never"
    # The gateway says that nothing was done.
    NOTHING_DONE = "nothing done"
    # It may have been done: only under the same token, which makes a repeat harmless.
    SAME_TOKEN = "same token"


class PrismError(Exception):
    """A call that failed.

    `message` is the gateway's sentence, `code` the gRPC status (`NOT_FOUND`), `reason` the gateway's name for what is
    wrong (`NAMESPACE_UNKNOWN`; empty where it gave none), `field` the field of the request that is at fault, `remedy`
    what to do. `outcome_unknown`: the write may or may not have happened; repeat it with `token=error.token`, or read.
    """

    remedy: ClassVar[str] = "read the message; the gateway's diagnostics name the request by its request_id"
    repeat: ClassVar[Repeat] = Repeat.NEVER

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        metadata: dict[str, str] | None = None,
        field: str = "",
        retry_after: float | None = None,
        request_id: str = "",
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = metadata or {}
        self.field = field or self.metadata.get("field", "")
        # Seconds after which the gateway says that it is worth trying again; None where it does not say.
        self.retry_after = retry_after
        # The gateway's name for the request; empty when the answer did not come from a gateway.
        self.request_id = request_id
        # What is wrong with a namespace file.
        self.problems = problems
        # The rest is filled in by the call, once it gives up.
        self.method = ""
        self.address = ""
        self.tries = 1
        self.outcome_unknown = False
        self.token: Token | None = None

    def __str__(self) -> str:
        where = f" ({self.method} at {self.address}" + (f", {self.tries} tries)" if self.tries > 1 else ")")
        parts = [self.reason or self.code, ": ", self.message, where if self.method else ""]
        if self.field and self.field not in self.message:
            parts.append(f"; field: {self.field}")
        if self.outcome_unknown:
            parts.append("; the outcome is unknown: repeat with token=error.token, or read")
        parts.append(f". What to do: {self.remedy}")
        return "".join(parts)

    @property
    def is_from_gateway(self) -> bool:
        """Whether a gateway gave this answer, and not the connection or this library."""
        return bool(self.reason or self.request_id)


class ConnectionLost(PrismError, ConnectionError):
    """No gateway could be reached, or the connection broke while the call was under way."""

    remedy = "see that a gateway runs at the address, and that nothing on the way blocks HTTP/2"
    repeat = Repeat.SAME_TOKEN


class DeadlineExceeded(PrismError, TimeoutError):
    """The call did not end within its timeout, all tries together."""

    remedy = "repeat with token=error.token and more time; a write may have been done"
    repeat = Repeat.SAME_TOKEN


class UnusablePayload(PrismError, ValueError):
    """A stored value or payload says that it is compressed, and cannot be given back decompressed. Made by the client."""

    remedy = "read it as it is stored (`raw_value`, `raw_payload`), or write it again"


class InvalidField(PrismError, ValueError):
    """A field is missing, too long or breaks another rule; `field` names it."""

    remedy = "correct the field; for a page token, start without one"


class MessageUnreadable(PrismError):
    """The request is not a message of the method's type."""

    remedy = "use a client of the gateway's version"


class MessageTooLarge(PrismError):
    """The request is larger than the gateway takes."""

    remedy = "send less at once"


class TokenReused(PrismError):
    """The idempotency token belongs to another call; nothing was done."""

    remedy = "use one token for one call only; leave `token` out and the client makes one"


class TokenExpired(PrismError):
    """The token is older than 10 minutes, so nobody can tell whether the call is a repeat; nothing was done."""

    remedy = "look whether the message is there, then send it with a new token; see that this machine's clock is right"


class LeaseLost(PrismError):
    """Another attempt of the message has begun."""

    remedy = "drop the work: another worker has it; use a longer lease, or extend it while you work"


class LeaseTooLong(PrismError):
    """The attempt has had its 12 hours."""

    remedy = "finish, or let the lease end"


class MessageGone(PrismError):
    """There is no such message any more."""

    remedy = "nothing: it was deleted, or acknowledged long ago"


class EarlierRefused(PrismError):
    """An earlier message of the batch with the same topic and key was refused; nothing was done for this one."""

    remedy = "mend the message at metadata['index'], send both again"


class PositionInvalid(PrismError, ValueError):
    """Not a position of this namespace and these topics, or one of a memory store that has ended since."""

    remedy = "correct it, or subscribe with start='earliest'"


class PositionExpired(PrismError):
    """Retention removed messages after the position: some are missing."""

    remedy = "subscribe with start='earliest', knowing that some are missing"


class PartitionLost(PrismError):
    """Other members of the group have some of the partitions now, whose events come to them; the rest was committed."""

    remedy = "go on: those events come again elsewhere"


class GroupReset(PrismError):
    """The group was reset or deleted; nothing was committed."""

    remedy = "subscribe again"


class CommitTimeout(PrismError):
    """Nothing was committed for commit_timeout, so others have the partitions of this subscription."""

    remedy = "subscribe again; commit earlier, or allow more time"


class GroupsFull(PrismError):
    """The namespace has the most groups that it may have; nothing was done."""

    remedy = "delete groups that nobody needs"


class StoreLacks(PrismError):
    """The store cannot do what `field` asks for; nothing was done."""

    remedy = "leave the field out"


class NamespaceUnknown(PrismError, LookupError):
    """The namespace does not exist, or was just deleted."""

    remedy = "create it (`prism namespace create FILE`), or correct the name"


class NamespaceOutOfService(PrismError):
    """The namespace exists and cannot be served; its data is kept; nothing was done."""

    remedy = "ask the operator: the message says why"


class NamespaceNotReady(PrismError):
    """The namespace's store is still being prepared; nothing was done."""

    remedy = "wait, then repeat"
    repeat = Repeat.NOTHING_DONE


class NamespaceDeleting(PrismError):
    """The namespace is being deleted."""

    remedy = "nothing; its name is free when it is not listed any more"


class NotServing(PrismError):
    """The gateway is starting or draining; nothing was done."""

    remedy = "repeat in a moment, or name several gateways in `server`"
    repeat = Repeat.NOTHING_DONE


class OtherApi(PrismError):
    """The namespace takes the calls of another API (`metadata['service']`); nothing was done."""

    remedy = "use the calls of the namespace's client_api, or name another namespace"


class Overloaded(PrismError):
    """Too many calls wait at the gateway; nothing was done."""

    remedy = "call less often, or ask the operator for more room"
    repeat = Repeat.NOTHING_DONE


class AnswersUnread(PrismError):
    """This client leaves too many answers unread; nothing was done."""

    remedy = "read the streams that are open, or close them; then repeat"
    repeat = Repeat.NOTHING_DONE


class RequestIncomplete(PrismError):
    """The rest of the request did not come in time; nothing was done."""

    remedy = "look at the network: the request was sent too slowly"
    repeat = Repeat.NOTHING_DONE


class HeadersTooLarge(PrismError):
    """The request's header fields are too large; nothing was done."""

    remedy = "see what adds metadata to the calls, a proxy for example"


class RateLimited(PrismError):
    """The namespace has had as many calls as it may for now; nothing was done."""

    remedy = "call less often, or declare a higher rate"
    repeat = Repeat.NOTHING_DONE


class BatchTooLarge(PrismError):
    """The batch has more items than the declared rate lets through at once; nothing was done."""

    remedy = "send it in several calls, or declare a higher rate"


class StoreBehind(PrismError):
    """Too much of the namespace is acknowledged and not in the store yet; nothing was done."""

    remedy = "write more slowly"
    repeat = Repeat.NOTHING_DONE


class LogBehind(PrismError):
    """Too much waits for the log's disk; nothing was done."""

    remedy = "write more slowly"
    repeat = Repeat.NOTHING_DONE


class LogFull(PrismError):
    """No segment of the log has room; nothing was done."""

    remedy = "tell the operator: the disk is full, or the store is behind"
    repeat = Repeat.NOTHING_DONE


class LogStalled(PrismError):
    """The log's disk does not answer; nothing was done."""

    remedy = "tell the operator"
    repeat = Repeat.NOTHING_DONE


class LogUnavailable(PrismError):
    """The log, or its next file, cannot be made; nothing was done."""

    remedy = "tell the operator: the message names the limit to raise"
    repeat = Repeat.NOTHING_DONE


class LanePoisoned(PrismError):
    """The log's disk has failed; nothing was done."""

    remedy = "tell the operator: the gateway must be started again"
    repeat = Repeat.NOTHING_DONE


class LaneHeld(PrismError):
    """The part of the log that holds this key must not be used; nothing was done."""

    remedy = "tell the operator"
    repeat = Repeat.NOTHING_DONE


class UnknownOutcome(PrismError):
    """The log's disk failed while the write was under way."""

    remedy = "when the gateway runs again, repeat with token=error.token"
    repeat = Repeat.SAME_TOKEN


class PartlyDone(PrismError):
    """Some mutations of the batch took effect; a shard refused the others (`metadata['cause']`)."""

    remedy = "repeat the whole with token=error.token"
    repeat = Repeat.SAME_TOKEN


class LogRecordTooLong(PrismError):
    """The write does not fit a segment of the log; nothing was done."""

    remedy = "send less at once, or ask the operator for a larger wal.segment_bytes"


class StoreFull(PrismError):
    """The store has no room; nothing was changed."""

    remedy = "delete something, or tell the operator; then repeat"


class StoreBusy(PrismError):
    """Another program holds the store; nothing was changed."""

    remedy = "tell the operator, then repeat"
    repeat = Repeat.NOTHING_DONE


class StoreUnreachable(PrismError):
    """The namespace's store cannot be reached; nothing was done."""

    remedy = "tell the operator"
    repeat = Repeat.NOTHING_DONE


class StoreIo(PrismError):
    """The store failed to read or write; the outcome is unknown."""

    remedy = "repeat with token=error.token; tell the operator"
    repeat = Repeat.SAME_TOKEN


class StoreCorrupt(PrismError):
    """Stored data is damaged."""

    remedy = "do not repeat; tell the operator"


class StoreFailed(PrismError):
    """A fault of the store or of Prism."""

    remedy = "do not repeat; tell the operator"


class NamespaceInvalid(PrismError, ValueError):
    """The namespace file or name has problems: `problems`, at most 10 of them."""

    remedy = "correct the file; `validate` lists all problems"


class NamespaceUnsupported(PrismError):
    """The file is valid, and neither this version nor a store of this gateway can serve it."""

    remedy = "leave out what the message names"


class NamespaceExists(PrismError):
    """The name is taken."""

    remedy = "choose another name, or use the namespace"


class NamespaceNotFound(PrismError, LookupError):
    """There is no namespace of that name to get, update or delete."""

    remedy = "correct the name"


class NamespaceProvisioning(PrismError):
    """The create is recorded and not done yet; it goes on."""

    remedy = "`get` says how far it is; do not repeat"


class NamespaceUpdating(PrismError):
    """The update is recorded and not done yet; it goes on."""

    remedy = "`get` says how far it is; do not repeat"


class NamespaceDeleted(PrismError):
    """Somebody deleted the namespace before its create or update was done."""

    remedy = "create it again, if it should be there"


class ImmutableField(PrismError):
    """The update changes a field that stays; nothing was done."""

    remedy = "create another namespace"


class PlanChanged(PrismError):
    """The gateway would plan something else by now; nothing was done."""

    remedy = "look at the plan again, then apply that one"


class VersionChanged(PrismError):
    """The namespace has another version than the update expects; nothing was done."""

    remedy = "look at it again, then update"


class BatchInvalid(PrismError, ValueError):
    """The batch of files has none, more than 1,000, or more than 4 MiB; nothing was done."""

    remedy = "several calls"


class BatchRefused(PrismError):
    """This file is fine, others of its call are not; nothing was done."""

    remedy = "correct those, send all again"


class StoreObjectForeign(PrismError):
    """The store has something in the namespace's place that the gateway has not made; the create was taken back."""

    remedy = "choose another name, or tell the operator"


class StoreObjectMissing(PrismError):
    """The store has lost the namespace's part; nothing was changed."""

    remedy = "tell the operator"


class NamespacesFull(PrismError):
    """The gateway has as many namespaces as it may."""

    remedy = "delete one, or ask the operator"


class PageInvalid(PrismError, ValueError):
    """The page size or the page token of a list is wrong."""

    remedy = "correct it, or begin without a token"


class DurabilityImpossible(PrismError):
    """None of the gateway's stores, or not its file system, can keep the durability that the file asks for."""

    remedy = "the message says what to change"


class NoStore(PrismError):
    """No store can keep all that the file asks for; the metadata names the rule that each store breaks."""

    remedy = "ask for less, or ask the operator for another store"


class HostNotAllowed(PrismError):
    """The gateway listens on loopback and the request is for another name."""

    remedy = "call it by a loopback name, or ask the operator for http.allowed_hosts"


class OriginNotAllowed(PrismError):
    """A page of another origin may not call."""

    remedy = "ask the operator for http.allowed_origins"


class DeadLetterUnknown(PrismError, LookupError):
    """There is no dead letter of that number."""

    remedy = "list them again"


class CatalogUnavailable(PrismError):
    """The catalog cannot be read or written; the message says whether the change may have been recorded."""

    remedy = "tell the operator, then look whether the change is there"
    repeat = Repeat.SAME_TOKEN


def reason_of(kind: type[PrismError]) -> str:
    """The gateway's reason for a type: NAMESPACE_UNKNOWN for NamespaceUnknown."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


# Types that the client chooses by the status, where the gateway gave no reason.
_OF_THE_CLIENT = (ConnectionLost, DeadlineExceeded, UnusablePayload)
# The type of each reason.
BY_REASON: dict[str, type[PrismError]] = {
    reason_of(kind): kind for kind in PrismError.__subclasses__() if kind not in _OF_THE_CLIENT
}
