"""One connection to a gateway: the JSON API, with every answer sorted by what it says of the outcome."""

import base64
import http.client
import json
import socket

# Answers that promise that nothing was done.
NOTHING_DONE = {"NOT_SERVING", "LANE_HELD", "STORE_BUSY", "LOG_STALLED", "LANE_POISONED", "OVERLOADED", "STORE_BEHIND", "LOG_BEHIND"}
NOTHING_DONE |= {"LOG_FULL", "STORE_FULL", "STORE_UNREACHABLE"}
# Codes after which a write may or may not have happened.
UNKNOWN = {"deadline_exceeded", "unavailable", "canceled"}


class Answer:
    """`kind` is ok, refused (nothing was done), unknown, or wrong (no correct server says this here)."""

    def __init__(self, kind, body=None, reason="", code=""):
        self.kind, self.body, self.reason, self.code = kind, body or {}, reason, code

    def __repr__(self):
        return f"{self.kind} {self.code} {self.reason}".strip()


class Api:
    def __init__(self, address, timeout=10.0):
        self.host, _, port = address.partition(":")
        self.port, self.timeout = int(port), timeout
        self.connection = None

    def call(self, method, body, deadline_ms=None, service="prism.keyvalue.v1.KeyValue"):
        """One call. Waits for `timeout` seconds at the most, whatever the server does."""
        headers = {"content-type": "application/json"}
        if deadline_ms is not None:
            headers["connect-timeout-ms"] = str(deadline_ms)
        try:
            if self.connection is None:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connection = connection
        except OSError as error:
            return Answer("refused", reason=f"not sent: {error}", code="unreachable")
        try:
            self.connection.request("POST", f"/{service}/{method}", json.dumps(body), headers)
            response = self.connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer("unknown", reason=f"{type(error).__name__}: {error}", code="lost")
        return self.sort(status, text)

    def sort(self, status, text):
        try:
            body = json.loads(text)
        except ValueError:
            self.close()
            return Answer("wrong", reason=f"status {status}, not JSON: {text[:200]!r}")
        if status == 200:
            return Answer("ok", body)
        code, reason = body.get("code", ""), ""
        for detail in body.get("details", []):
            reason = reason or detail.get("debug", {}).get("reason", "")
        if code == "resource_exhausted" or reason in NOTHING_DONE:
            return Answer("refused", body, reason, code)
        if code in UNKNOWN:
            return Answer("unknown", body, reason, code)
        return Answer("wrong", body, f"{reason}: {body.get('message', '')}", code)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def pack(text):
    return base64.b64encode(text.encode()).decode()


def unpack(text):
    return base64.b64decode(text).decode(errors="replace")
