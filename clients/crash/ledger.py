"""What was written and what was acknowledged, and whether what the server shows can follow from it.

Pure: no clock, no network. It knows nothing of how the server works, only what it promised:

- an acknowledged write is there, or a later one is (never an earlier one);
- a write of unknown outcome happened or not, once and for all;
- a refused write did not happen, and neither did one that nobody sent;
- of the increments of a counter by compare-and-swap, each that was answered `swapped` counts once.
"""


class Ledger:
    """The ids of one writer. Each id holds one item; only its writer writes it, one write at a time."""

    def __init__(self):
        self.ids = {}

    def begin(self, name, sequence, value):
        """A write is about to be sent; `value` is None for a delete. Sequences grow in the order of generation times."""
        entry = self.ids.setdefault(name, Entry())
        entry.texts[sequence] = value
        entry.open.add(sequence)

    def acknowledged(self, name, sequence):
        entry = self.ids[name]
        entry.open.discard(sequence)
        entry.rise(sequence)

    def refused(self, name, sequence):
        """The server said that nothing was done."""
        self.ids[name].open.discard(sequence)

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


class Entry:
    def __init__(self):
        self.texts = {0: None}
        self.floor = 0
        self.open = set()

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
        self.done = {}  # number -> token
        self.pending = {}  # token -> number
        self.denied = {}  # token -> number

    def begin(self, token, number):
        self.pending[token] = number

    def swapped(self, token):
        """Says what is wrong with the answer, or None."""
        number = self.pending.pop(token)
        if number in self.done:
            return f"DOUBLE: {token} and {self.done[number]} were both told that they made it {number}"
        self.done[number] = token
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
        if number in self.done:
            return None if self.done[number] == token else f"PHANTOM: {number} is {token}'s, not {self.done[number]}'s"
        if self.pending.get(token) == number:
            return None
        if self.denied.get(token) == number:
            return f"DOUBLE: {token} was told that it did not make it {number}, and it did"
        return f"PHANTOM: nobody made it {value}"

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
