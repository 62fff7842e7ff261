"""Writers: each has ids of its own, and shares counters with others of its namespace. All they do is in the journal.

Everything random follows from the seed; how calls interleave does not. A writer sends one call at a time. What has an
unknown outcome is sent again with its token, at once, later (after newer writes of the same id), or never.
"""

import random
import threading
import time

from api import Api, pack, unpack
from ledger import Ledger

ITEM = "item"
IDS = 24
VALUE_BYTES_MAX = 3000


class Journal:
    """Lines of what was sent and what was answered, to look at when a check fails."""

    def __init__(self, path):
        self.file = path.open("a", buffering=1 << 16)
        self.lock = threading.Lock()

    def add(self, *words):
        line = " ".join(str(word) for word in (time.time_ns(), *words))
        with self.lock:
            self.file.write(line + "\n")

    def flush(self):
        with self.lock:
            self.file.flush()


class Attempt:
    """One write: its body with its token, and what it means for the ledger or a counter."""

    def __init__(self, method, body, sequence=0, ids=(), counter=None, token=""):
        self.method, self.body, self.sequence = method, body, sequence
        self.ids, self.counter, self.token = list(ids), counter, token
        self.sent, self.sent_at = 0, 0.0


class Writer:
    def __init__(self, number, namespace, durability, seed, counters, journal, problems):
        self.name = f"{namespace}.{number}"
        self.namespace, self.durability = namespace, durability
        self.random = random.Random(f"{seed} {self.name}")
        self.ids = [f"w{number}-{index}" for index in range(IDS)]
        self.ledger = Ledger()
        self.counters, self.journal, self.problems = counters, journal, problems
        self.sequence, self.last_ns, self.answered = 0, 0, 0.0
        self.stamps = {}  # sequence -> generation time
        self.again = []  # attempts of unknown outcome, to be sent again
        self.lsns = {}  # lane -> last LSN acknowledged to a first attempt
        self.logged = {}  # lane -> when the last of those was sent: what the lane took before is on disk
        self.counts = {"ok": 0, "refused": 0, "unknown": 0, "reads": 0, "again": 0}
        self.reasons = {}
        self.deadline_ms = None
        self.api = None

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, address, stop, timeout=10.0):
        """Works until told to stop, or until the server is gone."""
        self.api = Api(address, timeout)
        try:
            while not stop.is_set():
                if self.step() == "refused":
                    stop.wait(0.01)
        finally:
            self.api.close()

    def step(self):
        draw = self.random.random()
        if self.again and draw < 0.4:
            return self.send(self.again.pop(self.random.randrange(len(self.again))))
        if draw < 0.50:
            return self.send(self.put())
        if draw < 0.60:
            return self.send(self.delete())
        if draw < 0.72:
            return self.send(self.mutate())
        if draw < 0.85:
            return self.increment()
        return self.read(self.random.choice(self.ids), settled=None)

    def settle(self, address, seconds_max):
        """Sends everything of unknown outcome again until it is known. Says whether all of it is."""
        self.api = Api(address)
        end = time.monotonic() + seconds_max
        while self.again and time.monotonic() < end:
            if self.send(self.again.pop(0), give_up=False) != "ok":
                time.sleep(0.02)
        self.api.close()
        return not self.again

    # --- writes ---------------------------------------------------------------------------------------------------

    def token(self):
        """Grows strictly, also when the clock does not."""
        self.sequence += 1
        self.last_ns = max(self.last_ns + 1, time.time_ns())
        self.stamps[self.sequence] = self.last_ns
        return {"generationTime": stamp(self.last_ns), "token": pack(f"{self.name}-{self.sequence}")}

    def value(self, name):
        text = f"{self.namespace}/{name}#{self.sequence}#"
        return text + "x" * int(VALUE_BYTES_MAX * self.random.random() ** 4)

    def begin(self, name, value):
        self.ledger.begin(name, self.sequence, value, time.monotonic())

    def put(self):
        name, token = self.random.choice(self.ids), self.token()
        value = self.value(name)
        self.begin(name, value)
        body = {"namespace": self.namespace, "id": name, "items": [item(value)], "idempotencyToken": token}
        return Attempt("Put", body, self.sequence, [name])

    def delete(self):
        name, token = self.random.choice(self.ids), self.token()
        self.begin(name, None)
        return Attempt("Delete", {"namespace": self.namespace, "id": name, "idempotencyToken": token}, self.sequence, [name])

    def mutate(self):
        names, token = self.random.sample(self.ids, 4), self.token()
        mutations = []
        for index, name in enumerate(names):
            value = None if index == 3 else self.value(name)
            self.begin(name, value)
            change = {"delete": {}} if value is None else {"put": {"items": [item(value)]}}
            mutations.append({"id": name, **change})
        body = {"namespace": self.namespace, "mutations": mutations, "idempotencyToken": token}
        return Attempt("Mutate", body, self.sequence, names)

    def increment(self):
        name = self.random.choice(sorted(self.counters))
        counter, lock = self.counters[name]
        with lock:
            reached = max(counter.done, default=0)
        found, answer = self.get(name)
        if answer.kind != "ok":
            return answer.kind
        with lock:
            problem = counter.observe(found)
        # Others count while this one reads: only what was acknowledged before must be seen.
        if problem and ("LOST" not in problem or int((found or "0").partition(":")[0]) < reached):
            self.problem(f"{name}: {problem}; {reached} was acknowledged before the read")
        number = int(found.partition(":")[0]) + 1 if found else 1
        token = self.token()
        mine = f"{self.name}-{self.sequence}"
        expected = {"value": pack(found)} if found else {"absent": {}}
        body = {"namespace": self.namespace, "id": name, "key": pack(ITEM), **expected}
        body |= {"item": {"value": pack(f"{number}:{mine}")}, "idempotencyToken": token}
        with lock:
            counter.begin(mine, number)
        return self.send(Attempt("CompareAndSwap", body, self.sequence, counter=name, token=mine))

    def send(self, attempt, give_up=True):
        attempt.sent += 1
        attempt.sent_at = time.monotonic()
        self.counts["again"] += attempt.sent > 1
        self.journal.add("send", self.name, attempt.method, attempt.sequence, attempt.sent, *attempt.ids, attempt.counter or "")
        answer = self.api.call(attempt.method, attempt.body, self.deadline_ms)
        self.answered = time.monotonic()
        self.journal.add("got", self.name, attempt.sequence, answer, answer.body.get("result", ""))
        kind = self.take(attempt, answer)
        self.counts[kind] += 1
        if kind == "unknown":
            # Increments must be known in the end; of the others some are left open for ever.
            if attempt.counter or not give_up or self.random.random() < 0.6:
                self.again.append(attempt)
        if answer.kind != "ok":
            word = answer.reason if answer.code not in ("lost", "unreachable") else answer.code
            self.reasons[word or answer.code] = self.reasons.get(word or answer.code, 0) + 1
        return kind

    def take(self, attempt, answer):
        """Writes an answer into the books. A refused repeat says nothing of the first attempt."""
        if answer.kind == "wrong":
            self.problem(f"{attempt.method} {attempt.sequence}: unexpected answer: {answer}")
            return "unknown"
        if answer.kind == "refused" and attempt.sent > 1:
            return "unknown"
        if attempt.counter:
            self.take_swap(attempt, answer)
        elif attempt.method == "Mutate" and answer.kind == "ok":
            return self.take_parts(attempt, answer)
        elif answer.kind == "ok":
            self.ledger.acknowledged(attempt.ids[0], attempt.sequence, self.answered)
            self.promise(attempt, answer.body.get("result", {}))
        elif answer.kind == "refused":
            for name in attempt.ids:
                self.ledger.refused(name, attempt.sequence)
        return answer.kind

    def take_swap(self, attempt, answer):
        counter, lock = self.counters[attempt.counter]
        with lock:
            if answer.kind == "ok" and answer.body.get("swapped"):
                problem = counter.swapped(attempt.token, self.answered)
                if problem:
                    self.problem(f"{attempt.counter}: {problem}")
            elif answer.kind in ("ok", "refused"):
                counter.nothing_done(attempt.token)

    def take_parts(self, attempt, answer):
        """Each mutation of a Mutate has an outcome of its own."""
        results, kind = answer.body.get("results", []), "ok"
        if len(results) != len(attempt.ids):
            self.problem(f"Mutate {attempt.sequence}: {len(results)} results for {len(attempt.ids)} mutations")
            return "unknown"
        for name, part in zip(attempt.ids, results):
            status = part.get("status", {})
            if not status.get("code"):
                self.ledger.acknowledged(name, attempt.sequence, self.answered)
                self.promise(attempt, part.get("result", {}))
            elif status["code"] == 8 and attempt.sent == 1:  # RESOURCE_EXHAUSTED: nothing was done
                self.ledger.refused(name, attempt.sequence)
                kind = "refused" if kind == "ok" else kind
            elif status["code"] in (1, 4, 8, 14):
                kind = "unknown"
            else:
                self.problem(f"Mutate {attempt.sequence}, {name}: unexpected status {status}")
        return kind

    def promise(self, attempt, result):
        """An acknowledgement must keep the namespace's promise, and records of one lane are numbered in order."""
        if result.get("durability") != self.durability:
            self.problem(f"{attempt.method} {attempt.sequence}: acknowledged as {result}, not {self.durability}")
        if self.durability == "DURABILITY_STRONG" and attempt.sent == 1:
            lane, lsn = result.get("lane", 0), int(result.get("lsn", 0))
            # The parts of one Mutate may be one record.
            if lsn < self.lsns.get(lane, 0) or lsn == 0:
                self.problem(f"{attempt.method} {attempt.sequence}: record {lsn} of lane {lane} after {self.lsns.get(lane, 0)}")
            self.lsns[lane] = max(lsn, self.lsns.get(lane, 0))
            self.logged[lane] = attempt.sent_at

    # --- reads ----------------------------------------------------------------------------------------------------

    def get(self, name):
        self.counts["reads"] += 1
        answer = self.api.call("Get", {"namespace": self.namespace, "id": name}, self.deadline_ms)
        if answer.kind == "wrong":
            self.problem(f"Get {name}: unexpected answer: {answer}")
        items = answer.body.get("items", []) if answer.kind == "ok" else []
        if len(items) > 1 or any(unpack(found["key"]) != ITEM for found in items):
            self.problem(f"Get {name}: more than the one item that was ever written: {items}")
        found = unpack(items[0].get("value", "")) if items else None
        self.journal.add("read", self.name, name, "nothing" if found is None else found[:40], answer)
        return found, answer

    def read(self, name, settled):
        found, answer = self.get(name)
        if answer.kind == "ok":
            problem = self.ledger.observe(name, found, settled)
            if problem:
                self.problem(problem)
        return answer.kind

    def check(self, address):
        """Reads everything while nothing is under way. Says how many ids could not be read, and why."""
        self.api = Api(address)
        unread = {}
        open_again = {attempt.sequence for attempt in self.again}
        for name in self.ids:
            found, answer = self.get(name)
            if answer.kind != "ok":
                unread[answer.reason or answer.code] = unread.get(answer.reason or answer.code, 0) + 1
                continue
            problem = self.ledger.observe(name, found, settled=open_again)
            if problem:
                self.problem(problem)
        self.api.close()
        return unread

    def check_after_cut(self, address, kept_before, in_order):
        """Reads everything after a power cut that may have taken acknowledged writes: how many ids have lost some."""
        # Of what has an unknown outcome only increments are sent again: they know by themselves whether they were done.
        self.again = [attempt for attempt in self.again if attempt.counter]
        self.api = Api(address)
        values = {}
        for name in self.ids:
            found, answer = self.get(name)
            if answer.kind != "ok":
                self.problem(f"{name}: cannot be read: {answer}")
                return 0
            values[name] = found
        self.api.close()
        lost = self.ledger.lost(values)
        for problem in self.ledger.after_cut(values, kept_before, in_order):
            self.problem(problem)
        return lost

    def check_versions(self, address, ids):
        """What is stored has the version that it was written with: a write a nanosecond older has no effect, one a nanosecond
        newer has."""
        self.api = Api(address)
        for name in self.random.sample(self.ids, ids):
            written = self.ledger.ids[name].floor if name in self.ledger.ids else 0
            # Not those that an earlier check has put there: their neighbours are taken.
            if self.ledger.text(name, written) is None or isinstance(written, float):
                continue
            for step, word in ((-1, "older"), (1, "newer")):
                # Between the numbers of the writers' own writes.
                sequence, value = written + step / 4, f"{self.namespace}/{name}#{written} {word}"
                self.ledger.begin(name, sequence, value, time.monotonic())
                self.stamps[sequence] = self.stamps[written] + step
                token = {"generationTime": stamp(self.stamps[sequence]), "token": pack(f"{self.name}-{sequence}-{name}")}
                body = {"namespace": self.namespace, "id": name, "items": [item(value)], "idempotencyToken": token}
                answer = self.api.call("Put", body)
                if answer.kind != "ok":
                    self.problem(f"Put of an {word} version to {name}: {answer}")
                    continue
                self.ledger.acknowledged(name, sequence, time.monotonic())
                self.read(name, settled=None)
        self.api.close()

    def problem(self, text):
        self.journal.add("WRONG", self.name, text)
        self.problems.append(f"{self.name}: {text}")


def item(value):
    return {"key": pack(ITEM), "value": pack(value)}


def stamp(nanoseconds):
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"
