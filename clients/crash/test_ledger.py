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


class Cuts(unittest.TestCase):
    """Moments are numbers: each write begins at its sequence, and is acknowledged half later."""

    def ledger(self, *writes):
        ledger = Ledger()
        for sequence, names in enumerate(writes, 1):
            for name in names:
                ledger.begin(name, sequence, f"v{sequence}", sequence)
            for name in names:
                ledger.acknowledged(name, sequence, sequence + 0.5)
        return ledger

    def test_the_last_writes_may_be_lost_and_no_others(self):
        for left in (None, "v1", "v2", "v3"):
            self.assertEqual(self.ledger("a", "a", "a").after_cut({"a": left}), [])
        self.assertIn("PHANTOM", self.ledger("a").after_cut({"a": "v7"})[0])

    def test_what_was_acknowledged_long_ago_must_be_there(self):
        self.assertEqual(self.ledger("a", "a", "a").after_cut({"a": "v2"}, kept_before=3), [])
        self.assertIn("LOST", self.ledger("a", "a", "a").after_cut({"a": "v1"}, kept_before=3)[0])
        self.assertIn("LOST", self.ledger("a").after_cut({"a": None}, kept_before=2)[0])
        self.assertEqual(self.ledger("a", "b").must_be_new(2), 1)

    def test_what_a_cut_left_or_took_stays_so(self):
        ledger = self.ledger("a", "a", "a")
        self.assertEqual(ledger.lost({"a": "v2"}), 1)
        self.assertEqual(ledger.after_cut({"a": "v2"}), [])
        self.assertIsNone(ledger.observe("a", "v2"))
        self.assertIn("LOST", ledger.after_cut({"a": "v1"})[0])
        ledger = self.ledger("a", "a", "a")
        ledger.after_cut({"a": "v2"})
        self.assertIn("PHANTOM", ledger.after_cut({"a": "v3"})[0])

    def test_refused_writes_are_not_left_and_unknown_ones_may_be(self):
        ledger = self.ledger("a")
        ledger.begin("a", 2, "v2", 2)
        ledger.refused("a", 2)
        ledger.begin("a", 3, "v3", 3)
        self.assertIn("PHANTOM", ledger.after_cut({"a": "v2"})[0])
        ledger.begin("a", 4, "v4", 4)
        self.assertEqual(ledger.after_cut({"a": "v4"}), [])

    def test_what_is_left_is_all_up_to_a_moment(self):
        for left in ({"a": None, "b": None}, {"a": "v1", "b": None}, {"a": "v1", "b": "v2"}, {"a": "v3", "b": "v2"}):
            self.assertEqual(self.ledger("a", "b", "a").after_cut(left, in_order=True), [])
        for left in ({"a": None, "b": "v2"}, {"a": "v3", "b": None}):
            self.assertIn("GAP", self.ledger("a", "b", "a").after_cut(left, in_order=True)[0])
            self.assertEqual(self.ledger("a", "b", "a").after_cut(left), [])

    def test_a_write_of_several_ids_is_whole(self):
        for left in ({"a": None, "b": None}, {"a": "v1", "b": "v1"}, {"a": "v1", "b": "v2"}):
            self.assertEqual(self.ledger("ab", "b").after_cut(left, in_order=True), [])
        for left in ({"a": "v1", "b": None}, {"a": None, "b": "v2"}):
            self.assertNotEqual(self.ledger("ab", "b").after_cut(left, in_order=True), [])


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

    def test_a_cut_takes_the_last_increments_only(self):
        self.assertIsNone(self.counter(1, 2, 3).after_cut("2:t2"))
        self.assertIsNone(self.counter(1, 2, 3).after_cut(None))
        self.assertIn("PHANTOM", self.counter(1, 2, 3).after_cut("2:t3"))
        self.assertIn("LOST", self.counter(1, 2, 3).after_cut("2:t2", kept_before=1))
        counter = self.counter(1, 2, 3)
        counter.after_cut("2:t2")
        self.assertIsNone(counter.conclude("2:t2"))
        self.assertIn("LOST", counter.after_cut("1:t1"))
        counter.begin("again", 3)
        self.assertIsNone(counter.swapped("again"))


if __name__ == "__main__":
    unittest.main()
