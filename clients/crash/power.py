"""Power cuts of the whole gateway, on a disk that loses what was not synced (`disk.py`)."""

import time

from disk import Disk
from ledger import Counter
from server import Failure
from stage import Stage, cleanly, tell

# The record of a write at `eventual` follows its answer into the log, within milliseconds if the machine is not busy. A write at
# `strong` that was sent so much later and is acknowledged has it before it in the same lane, on disk.
EVENTUAL_SECONDS = 1.0
LANES = 2
# How long is written before a cut, in turn: less than that, well more, and about as long. Each tenth time
# the store syncs at least once meanwhile, as it does every five seconds.
WORK_SECONDS = ((0.2, 0.8), (1.8, 2.4), (0.8, 1.8))
LONG_WORK_SECONDS = (6.0, 8.0)
VERSIONS_CHECKED = 6
STOP_SECONDS_MAX = 20
ACK_SECONDS_MAX = 20
# So many cuts must have shown something of each durability; what fewer show depends on how busy the disk is.
CUTS_ENOUGH = 10
LOSSY = ("eventual", "best-effort")


def power(options, folder, seed):
    """The power is cut under load, many times, and at last on a disk that lies; each time a gateway starts on what the disk has."""
    folder.mkdir(parents=True)
    with Disk(folder) as disk:
        stage = Stage(options, folder / "stage", seed, data=disk.mount / "data")
        stage.loads_checked = [name for name in stage.durabilities if name == "strong"]
        with cleanly(stage):
            tally = Tally()
            stage.start()
            stage.create_namespaces()
            for number in range(options.cuts):
                # Some work of each length with each kind of cut.
                cache_lost = number % 4 != 2
                limits = LONG_WORK_SECONDS if number % 10 == 9 else WORK_SECONDS[number % len(WORK_SECONDS)]
                seconds = stage.random.uniform(*limits)
                what = f"cut {number + 1}, after {seconds:.1f} s, the write cache {'lost' if cache_lost else 'kept'}"
                cut(stage, disk, seconds, cache_lost, tally)
                stage.start()
                check(stage, tally)
                if stage.problems:
                    raise Failure(what)
                if tally.cuts % 10 == 0:
                    print(f"    {tally.cuts} of {options.cuts} cuts", flush=True)
            stage.conclude()
            tell(stage, f"{options.cuts} power cuts: {tally}")
            stage.problems += tally.shortfalls(stage)
            if "strong" in stage.durabilities and not stage.problems:
                notice_a_lie(stage, disk)


class Tally:
    """What the cuts have shown."""

    def __init__(self):
        self.cuts = 0
        self.blunt = 0  # the copy had what nobody had synced
        self.lost = dict.fromkeys(LOSSY, 0)  # ids whose last acknowledged writes were lost
        self.kept = 0  # ids at `eventual` that had to show a write since the cut before, and do
        self.strong = 0  # acknowledged writes at `strong` that had to be there

    def __str__(self):
        lost = ", ".join(f"{count} at {name}" for name, count in self.lost.items())
        return (f"{self.strong} acknowledged writes at strong are all there; ids that lost their last writes, as they may: {lost}; "
                f"{self.kept} ids at eventual kept what the log must have had; {self.blunt} copies with what nobody had synced")

    def shortfalls(self, stage):
        """Why the run shows less than it should."""
        if self.blunt * 2 > self.cuts:
            yield f"in {self.blunt} of {self.cuts} copies there is what nobody had synced: they were no power cuts"
        if "best-effort" in stage.durabilities and not self.lost["best-effort"]:
            yield "nothing was lost at best-effort: the cuts show nothing"
        if {"eventual", "strong"} <= set(stage.durabilities) and self.cuts >= CUTS_ENOUGH and not self.kept:
            yield "no write at eventual had to be in the log: the cuts show nothing of it"
        if "strong" in stage.durabilities and not self.strong:
            yield "nothing was acknowledged at strong"


def cut(stage, disk, seconds, cache_lost, tally):
    """Load, the cut, and the disk as the cut left it."""
    disk.prepare()
    stage.begin()
    time.sleep(seconds)
    # The disk may be busy with the work of others: a cut that took nothing which was promised would show nothing.
    end = time.monotonic() + ACK_SECONDS_MAX
    while time.monotonic() < end and not all(writer.logged for writer in stage.writers if durability_of(writer.namespace) == "strong"):
        time.sleep(0.01)
    stage.stand_still(STOP_SECONDS_MAX)
    disk.cut(cache_lost)
    stage.kill()
    stage.end()
    tally.cuts += 1
    tally.blunt += not disk.restore(cache_lost)


def check(stage, tally):
    kept_before = {"eventual": in_the_log_before(stage)}
    for writer in stage.writers:
        durability = durability_of(writer.namespace)
        if durability == "strong":
            tally.strong += writer.ledger.take_acks()
            unread = writer.check(stage.address)
            if unread:
                stage.problems.append(f"{writer.name}: cannot be read: {unread}")
        else:
            before = kept_before.get(durability)
            tally.kept += writer.ledger.must_be_new(before)
            tally.lost[durability] += writer.check_after_cut(stage.address, before, in_order=durability == "best-effort")
    for namespace in stage.counters:
        durability = durability_of(namespace)
        before = kept_before.get(durability)
        stage.check_counters(
            Counter.observe if durability == "strong" else lambda counter, value: counter.after_cut(value, before), [namespace]
        )
    for durability in stage.loads_checked:
        stage.check_load(durability)
    if not stage.problems:
        for writer in stage.writers:
            writer.check_versions(stage.address, VERSIONS_CHECKED)
    stage.journal.flush()


def in_the_log_before(stage):
    """Before which moment the answers to writes at `eventual` have their records on disk; None where nothing shows it."""
    lanes = {}
    for writer in stage.writers:
        for lane, sent in writer.logged.items():
            lanes[lane] = max(sent, lanes.get(lane, 0.0))
        writer.logged.clear()
    return min(lanes.values()) - EVENTUAL_SECONDS if len(lanes) == LANES else None


def durability_of(namespace):
    return namespace.removeprefix("crash-")


def notice_a_lie(stage, disk):
    """Is the check worth anything? A disk that reports writes as durable and loses them must be noticed by each writer at `strong`."""
    disk.lie()
    cut(stage, disk, 1.0, True, Tally())
    stage.start()
    for writer in stage.writers:
        if durability_of(writer.namespace) == "strong":
            writer.check(stage.address)
            if not any(text.startswith(writer.name) and "LOST" in text for text in stage.problems):
                raise Failure(f"{writer.name} does not notice that a lying disk has lost its writes; noticed were {stage.problems}")
    print(f"    a disk that lies is noticed: {len(stage.problems)} problems, such as {stage.problems[0][:150]}", flush=True)
    stage.problems.clear()
