"""What was written and what was acknowledged, and whether what the server shows can follow from it.

Pure: no clock, no network. It knows nothing of how the server works, only what it promised:

- an acknowledged write is there, or a later one is (never an earlier one);
- a write of unknown outcome happened or not, once and for all;
- a refused write did not happen, and neither did one that nobody sent;
- of the increments of a counter by compare-and-swap, each that was answered `swapped` counts once.

A power cut below `strong` may take acknowledged writes: `after_cut` says whether what is left can be what the disk had.
Moments are the caller's: any number that grows.
"""


class Ledger:
    """The ids of one writer. Each id holds one item; only its writer writes it, one write at a time."""

    def __init__(self):
        self.ids = {}

    def begin(self, name, sequence, value, at=0):
        """A write is about to be sent; `value` is None for a delete. Sequences grow in the order of generation times."""
        entry = self.ids.setdefault(name, Entry())
        entry.texts[sequence] = value
        entry.open.add(sequence)
        entry.begun[sequence] = at

    def acknowledged(self, name, sequence, at=0):
        entry = self.ids[name]
        entry.open.discard(sequence)
        entry.acks[sequence] = at
        entry.rise(sequence)

    def refused(self, name, sequence):
        """The server said that nothing was done."""
        self.ids[name].open.discard(sequence)
        self.ids[name].begun.pop(sequence, None)

    def observe(self, name, value, settled=()):
        """A read gave `value` (None: no such item). Says what is wrong with that, or None.

        With `settled` None nothing is settled: writes of unknown outcome may still happen. Otherwise nothing is under
        way, and what is not seen now and not in `settled` (writes that will be sent again) never happened.
        """
        entry = self.ids.setdefault(name, Entry())
        problem = entry.observe(value)
        if settled is not None:
            entry.open &= set(settled)
        return f"{name}: {problem}" if problem else None

    def after_cut(self, values, kept_before=None, in_order=False):
        """A power cut may have taken acknowledged writes, and left `values`, which are all ids. Says what is wrong.

        What was there after the cut before is there, and what was acknowledged before the moment `kept_before`. With
        `in_order` the writes that are left are all up to some moment, and each of them whole.
        Everything of unknown outcome is settled: none of it may be sent again.
        """
        shown, problems = {}, []
        for name, value in values.items():
            entry = self.ids.setdefault(name, Entry())
            shown[name] = entry.left(value, kept_before)
            if not shown[name]:
                problems.append(f"{name}: {entry.why_not(value, kept_before)}")
        if in_order and not problems:
            problems += self.why_not_in_order(shown)
        for name, numbers in shown.items():
            if numbers:
                # A delete may be any of several: newer writes than all of them will tell them apart.
                self.ids[name].restart(max(numbers))
        return problems

    def take_acks(self):
        """How many writes were acknowledged since this was asked last. For those that no cut may take."""
        count = sum(len(entry.acks) for entry in self.ids.values())
        for entry in self.ids.values():
            entry.acks.clear()
        return count

    def text(self, name, number):
        return self.ids[name].texts[number] if name in self.ids else None

    def why_not_in_order(self, shown):
        moments = {self.ids[name].begun.get(number, float("-inf")) for name, numbers in shown.items() for number in numbers}
        if not any(all(self.ids[name].is_at(moment, numbers) for name, numbers in shown.items()) for moment in moments):
            yield f"GAP: a write is lost and a later one is there: {self.describe(shown)}"
        for name, numbers in shown.items():
            if not any(self.is_whole(number, shown) for number in numbers):
                yield f"HALF: write {numbers} is at {name}, and not at all of its ids: {self.describe(shown)}"

    def is_whole(self, number, shown):
        """Whether all other ids of a write have it, or a later one."""
        return all(max(numbers) >= number for name, numbers in shown.items() if number in self.ids[name].begun)

    def describe(self, shown):
        return {name: (numbers, sorted(self.ids[name].acks)) for name, numbers in shown.items() if self.ids[name].acks}

    def must_be_new(self, kept_before):
        """How many ids must show a write since the cut before, because it was acknowledged before this moment."""
        return sum(entry.least(kept_before) > entry.base for entry in self.ids.values())

    def lost(self, values):
        """How many ids do not show their last acknowledged write."""
        return sum(self.ids[name].texts[self.ids[name].floor] != value for name, value in values.items() if name in self.ids)


class Entry:
    def __init__(self):
        self.texts = {0: None}
        self.floor = 0
        self.open = set()
        self.restart(0)

    def restart(self, number):
        """A power cut has left this write."""
        self.floor = self.base = number
        self.open = set()
        self.begun, self.acks = {}, {}  # number -> moment, since then, of what was not refused

    def least(self, kept_before):
        kept = [number for number, at in self.acks.items() if kept_before is not None and at < kept_before]
        return max([self.base, *kept])

    def left(self, value, kept_before):
        """The writes that `value` may be after a power cut."""
        least = self.least(kept_before)
        return [number for number in {self.base, *self.begun} if number >= least and self.texts[number] == value]

    def why_not(self, value, kept_before):
        least = self.least(kept_before)
        known = [number for number, text in self.texts.items() if text == value]
        expected = f"kept must be write {least} ({show(self.texts[least])}) or a later one of {sorted(self.begun)}"
        if known and max(known) < least:
            return f"LOST: write {max(known)} ({show(value)}) is there; {expected}"
        return f"PHANTOM: {show(value)} is there, which is write {known or 'of nobody'}; {expected}"

    def is_at(self, moment, numbers):
        """Whether one of these writes was what a read showed at some instant at which `moment` was the latest begin."""
        return any(
            self.begun.get(number, float("-inf")) <= moment
            and not any(later > number and at <= moment for later, at in self.acks.items())
            for number in numbers
        )

    def rise(self, sequence):
        self.floor = max(self.floor, sequence)
        # What is older than an acknowledged write cannot show any more; kept are texts for messages.
        self.open = {number for number in self.open if number > self.floor}

    def observe(self, value):
        if value == self.texts[self.floor]:
            return None
        for number in sorted(self.open):
            if self.texts[number] == value:
                self.rise(number)
                return None
        expected = f"acknowledged is write {self.floor} ({show(self.texts[self.floor])}), open are {sorted(self.open)}"
        if value is None:
            return f"LOST: there is nothing; {expected}"
        known = [number for number, text in self.texts.items() if text == value]
        if not known:
            return f"PHANTOM: nobody wrote {show(value)}; {expected}"
        if known[0] < self.floor:
            return f"LOST: an earlier write is there, {known[0]} ({show(value)}); {expected}"
        return f"PHANTOM: write {known[0]} was refused or had not happened, and is there now; {expected}"


class Counter:
    """One counter, incremented by any number of writers with compare-and-swap and a token for each attempt."""

    def __init__(self):
        self.base = 0  # what a power cut has left
        self.times = {}  # number -> moment of its answer, since then
        self.done = {}  # number -> token
        self.pending = {}  # token -> number
        self.denied = {}  # token -> number

    def begin(self, token, number):
        self.pending[token] = number

    def swapped(self, token, at=0):
        """Says what is wrong with the answer, or None."""
        number = self.pending.pop(token)
        if number in self.done:
            return f"DOUBLE: {token} and {self.done[number]} were both told that they made it {number}"
        self.done[number] = token
        self.times[number] = at
        return None

    def nothing_done(self, token):
        """Not swapped, or refused."""
        self.denied[token] = self.pending.pop(token)

    def observe(self, value):
        """A read gave `value`, "NUMBER:TOKEN" or None. Says what is wrong with that, or None."""
        reached = max(self.done, default=0)
        if value is None:
            return f"LOST: there is no counter, {reached} was acknowledged" if reached else None
        text, _, token = value.partition(":")
        number = int(text)
        if number < reached:
            return f"LOST: the counter is {number}, {reached} was acknowledged"
        return self.why_not(number, token)

    def why_not(self, number, token):
        if number in self.done:
            return None if self.done[number] == token else f"PHANTOM: {number} is {token}'s, not {self.done[number]}'s"
        if self.pending.get(token) == number:
            return None
        if self.denied.get(token) == number:
            return f"DOUBLE: {token} was told that it did not make it {number}, and it did"
        return f"PHANTOM: nobody made it {number}:{token}"

    def after_cut(self, value, kept_before=None):
        """A power cut may have taken acknowledged increments, the last ones. Says what is wrong with what is left, or None."""
        text, _, token = (value or "0:").partition(":")
        number = int(text)
        kept = [step for step, at in self.times.items() if kept_before is not None and at < kept_before]
        least = max([self.base, *kept])
        if number < least:
            return f"LOST: the counter is {number}, and {least} must have been kept"
        problem = self.why_not(number, token) if number else None
        self.done = {step: made_by for step, made_by in self.done.items() if step <= number}
        self.base, self.times = number, {}
        return problem

    def conclude(self, value):
        """Nothing is pending any more: the counter must be the number of increments."""
        if self.pending:
            return f"increments are still pending: {sorted(self.pending)}"
        problem = self.observe(value)
        if problem:
            return problem
        number = int(value.partition(":")[0]) if value else 0
        missing = [step for step in range(1, number + 1) if step not in self.done]
        if number != len(self.done) or missing:
            return f"the counter is {number}, increments were {len(self.done)}; nobody was told of {missing[:5]}"
        return None


def show(value):
    return "deleted" if value is None else value[:40]
