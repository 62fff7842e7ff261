"""The methods of the gateway that the client calls, and how each may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message

from prism.admin.v1 import namespaces_pb2 as admin
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from prism.pubsub.v1 import pubsub_pb2 as ps
from prism.queue.v1 import queue_pb2 as qu


@dataclass(frozen=True)
class Method:
    """A method by its path, with the type of its answer."""

    path: str
    response: type[Message]
    # It changes something, so that a lost answer leaves the outcome unknown.
    writes: bool = False
    # The same request again has no second effect: a read, or a write under its token.
    repeatable: bool = True

    @property
    def name(self) -> str:
        """The method's name, without its service."""
        return self.path.rpartition("/")[2]


_KV, _PS, _QU = "/prism.keyvalue.v1.KeyValue/", "/prism.pubsub.v1.PubSub/", "/prism.queue.v1.Queue/"
_NS = "/prism.admin.v1.Namespaces/"

PUT = Method(_KV + "Put", kv.PutResponse, writes=True)
GET = Method(_KV + "Get", kv.GetResponse)
DELETE = Method(_KV + "Delete", kv.DeleteResponse, writes=True)
SCAN = Method(_KV + "Scan", kv.ScanResponse)
MUTATE = Method(_KV + "Mutate", kv.MutateResponse, writes=True)
SWAP = Method(_KV + "CompareAndSwap", kv.CompareAndSwapResponse, writes=True)

PUBLISH = Method(_PS + "Publish", ps.PublishResponse, writes=True)
PUBLISH_BATCH = Method(_PS + "PublishBatch", ps.PublishBatchResponse, writes=True)
SUBSCRIBE = Method(_PS + "Subscribe", ps.SubscribeResponse)
COMMIT = Method(_PS + "Commit", ps.CommitResponse, writes=True)

SEND = Method(_QU + "Send", qu.SendResponse, writes=True)
SEND_BATCH = Method(_QU + "SendBatch", qu.SendBatchResponse, writes=True)
RECEIVE = Method(_QU + "Receive", qu.ReceiveResponse, writes=True)
ACK = Method(_QU + "Ack", qu.AckResponse, writes=True)
NACK = Method(_QU + "Nack", qu.NackResponse, writes=True)
EXTEND = Method(_QU + "Extend", qu.ExtendResponse, writes=True)
STATS = Method(_QU + "Stats", qu.StatsResponse)

# Changes of namespaces have no token: a repeat after a lost answer could meet what the first one did, and fail for it.
CREATE_NAMESPACE = Method(_NS + "Create", admin.CreateResponse, writes=True, repeatable=False)
UPDATE_NAMESPACE = Method(_NS + "Update", admin.UpdateResponse, writes=True, repeatable=False)
DELETE_NAMESPACE = Method(_NS + "Delete", admin.DeleteResponse, writes=True, repeatable=False)
VALIDATE_NAMESPACE = Method(_NS + "Validate", admin.ValidateResponse)
GET_NAMESPACE = Method(_NS + "Get", admin.GetResponse)
LIST_NAMESPACES = Method(_NS + "List", admin.ListResponse)
