"""The ledger must call wrong what is wrong, and nothing else. `clients/crash/run` runs these first."""

import unittest

from ledger import Counter, Ledger


def written(*events):
    ledger = Ledger()
    for sequence, outcome in enumerate(events, 1):
        value = None if outcome.startswith("delete") else f"v{sequence}"
        ledger.begin("id", sequence, value)
        if outcome.endswith("ok"):
            ledger.acknowledged("id", sequence)
        elif outcome.endswith("refused"):
            ledger.refused("id", sequence)
    return ledger


class Items(unittest.TestCase):
    def test_what_was_acknowledged_must_be_there(self):
        self.assertIsNone(written("ok").observe("id", "v1"))
        self.assertIn("LOST", written("ok").observe("id", None))
        self.assertIn("LOST", written("ok", "ok").observe("id", "v1"))
        self.assertIn("LOST", written("ok", "delete ok").observe("id", "v1"))
        self.assertIsNone(written("ok", "delete ok").observe("id", None))

    def test_an_unknown_outcome_may_be_either_and_then_stays_what_it_was(self):
        for value in ("v1", "v2"):
            ledger = written("ok", "unknown")
            self.assertIsNone(ledger.observe("id", value))
            self.assertIsNone(ledger.observe("id", value))
        ledger = written("ok", "unknown")
        ledger.observe("id", "v1")
        self.assertIn("PHANTOM", ledger.observe("id", "v2"))
        ledger = written("ok", "unknown")
        ledger.observe("id", "v2")
        self.assertIn("LOST", ledger.observe("id", "v1"))

    def test_what_will_be_sent_again_or_is_under_way_stays_open(self):
        ledger = written("ok", "unknown")
        self.assertIsNone(ledger.observe("id", "v1", settled={2}))
        self.assertIsNone(ledger.observe("id", "v1", settled=None))
        self.assertIsNone(ledger.observe("id", "v2", settled={2}))

    def test_a_late_repeat_of_an_older_write_lowers_nothing(self):
        ledger = written("unknown", "ok")
        ledger.acknowledged("id", 1)
        self.assertIsNone(ledger.observe("id", "v2"))
        self.assertIn("LOST", ledger.observe("id", "v1"))

    def test_what_was_refused_or_never_sent_must_not_be_there(self):
        self.assertIn("PHANTOM", written("ok", "refused").observe("id", "v2"))
        self.assertIn("PHANTOM", written("ok").observe("id", "v9"))
        self.assertIn("PHANTOM", written("delete ok").observe("id", "v9"))
        self.assertIn("PHANTOM", Ledger().observe("other", "v1"))
        self.assertIsNone(Ledger().observe("other", None))


class Counters(unittest.TestCase):
    def counter(self, *numbers):
        counter = Counter()
        for number in numbers:
            counter.begin(f"t{number}", number)
            self.assertIsNone(counter.swapped(f"t{number}"))
        return counter

    def test_every_increment_counts_once(self):
        self.assertIsNone(self.counter(1, 2, 3).conclude("3:t3"))
        self.assertIsNone(Counter().conclude(None))
        self.assertIn("LOST", self.counter(1, 2, 3).conclude("2:t2"))
        self.assertIn("LOST", self.counter(1).conclude(None))
        self.assertIn("PHANTOM", self.counter(1, 2).conclude("3:t3"))
        self.assertIn("nobody was told", self.counter(1, 3).conclude("3:t3"))

    def test_two_cannot_make_the_same_number(self):
        counter = self.counter(1)
        counter.begin("other", 1)
        self.assertIn("DOUBLE", counter.swapped("other"))

    def test_a_pending_increment_may_show_and_a_denied_one_may_not(self):
        counter = self.counter(1)
        counter.begin("t2", 2)
        self.assertIsNone(counter.observe("1:t1"))
        self.assertIsNone(counter.observe("2:t2"))
        self.assertIn("pending", counter.conclude("2:t2"))
        counter.nothing_done("t2")
        self.assertIn("DOUBLE", counter.observe("2:t2"))


if __name__ == "__main__":
    unittest.main()
