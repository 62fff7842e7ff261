"""What is done to the server. Each scenario ends with a check of everything; what is wrong stands in `stage.problems`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from api import Api
from chaos import SERVERS, chaos, log, net, storm  # noqa: F401 the servers are for the command line
from power import power
from server import Failure
from stage import BESIDE, Stage, TOOL_SECONDS_MAX, cleanly, tell

# What the disk of the full-disk scenario holds: two lanes of small segments, what three rounds put into the store, and
# little more: what comes free with the ballast has to go where the store needs it.
DISK_BYTES = 192 << 20
# A stall that is longer than the log waits before it refuses appends (5 s), and shorter than it gives up (30 s).
LONG_STALL_SECONDS = 6.0


def checker(options, folder, seed):
    """Is the check worth anything? A data directory that is put back to an older copy of itself must be noticed."""
    stage = Stage(options, folder, seed)
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        work(stage, 0.6)
        stage.kill()
        shutil.copytree(stage.data, folder / "copy")
        stage.start()
        work(stage, 0.6)
        stage.kill()
        shutil.rmtree(stage.data)
        (folder / "copy").rename(stage.data)
        stage.start()
        stage.check()
        found, stage.problems[:] = list(stage.problems), []
        noticed = [writer.name for writer in stage.writers if any(text.startswith(writer.name) and "LOST" in text for text in found)]
        noticed += [name for name in stage.durabilities if any(text.startswith(f"load-{name}: status 4") for text in found)]
        expected = len(stage.writers) + len(stage.durabilities) * stage.with_load
        tell(stage, f"noticed by {len(noticed)} of {expected} checkers")
        if len(noticed) != expected:
            stage.problems.append(f"an old copy of the data was noticed only by {noticed}")


def kill(options, folder, seed):
    """SIGKILL at a random moment under load, restart, check; many times on one data directory."""
    stage = Stage(options, folder, seed)
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        for cycle in range(1, options.cycles + 1):
            stage.begin()
            time.sleep(stage.random.uniform(0.05, 1.2))
            stage.kill()
            stage.end()
            stage.start()
            # The load generators' journals grow; a thorough look at them every few cycles is enough to notice.
            if not stage.check(load=cycle % 5 == 0 or cycle == options.cycles):
                raise Failure(f"after kill {cycle}")
        stage.conclude()
        tell(stage, f"{options.cycles} kills")
        stage.server.stop()
        # And after a clean stop.
        stage.start()
        stage.check()
        stage.server.stop()


def recovery(options, folder, seed):
    """SIGKILL while the server recovers from SIGKILL, several times in a row, then check."""
    stage = Stage(options, folder, seed)
    inside = kills = 0
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        began = time.monotonic()
        for round_number in range(options.recoveries):
            stage.begin()
            time.sleep(stage.random.uniform(0.4, 1.0))
            stage.kill()
            stage.end()
            for _ in range(stage.random.randrange(1, 4)):
                kills += 1
                inside += kill_in_recovery(stage)
            stage.start()
            if not stage.check(load=round_number % 3 == 2):
                raise Failure(f"after round {round_number + 1}")
        stage.conclude()
        tell(stage, f"{kills} kills, {inside} of them after the log was found and before it was ready, {time.monotonic() - began:.0f} s")
        if inside == 0:
            stage.problems.append("not one kill fell into a recovery: the scenario shows nothing")
        stage.server.stop()


def kill_in_recovery(stage):
    """Says whether the kill fell between the first line about the log and readiness."""
    before = len(stage.server.output())
    stage.spawn()
    end = time.monotonic() + 30
    # Half of the kills wait for the recovery to begin, the others may come before.
    wait_for_line = stage.random.random() < 0.7
    delay = stage.random.uniform(0, 0.03 if wait_for_line else 0.15)
    while wait_for_line and time.monotonic() < end and "log read" not in stage.server.output()[before:]:
        if stage.server.process.poll() is not None:
            stage.problems.append(f"the server ended by itself with status {stage.server.process.returncode} while it recovered")
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    ready = stage.probe("/readyz")[0] == 200
    stage.kill()
    return "log read" in stage.server.output()[before:] and not ready


def stall(options, folder, seed):
    """SIGSTOP and SIGCONT under load: nothing lost, clients' deadlines hold, and it recovers by itself."""
    stage = Stage(options, folder, seed)
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        for seconds in (1.0, 2.5, LONG_STALL_SECONDS, 0.3):
            stage.begin(timeout=3.0, deadline_ms=500)
            time.sleep(0.5)
            stage.server.process.send_signal(signal.SIGSTOP)
            measure_deadline(stage, seconds)
            stage.server.process.send_signal(signal.SIGCONT)
            await_success(stage, 10.0, f"after a stall of {seconds} s")
            stage.end()
            stage.await_quiet()
            for writer in stage.writers:
                writer.deadline_ms = None
                if not writer.settle(stage.address, 20):
                    stage.problems.append(f"{writer.name}: writes are still unknown after a stall of {seconds} s: {writer.reasons}")
            if not stage.check() or stage.server.process.poll() is not None:
                raise Failure(f"after a stall of {seconds} s")
        stage.conclude()
        tell(stage, "stalls of 1, 2.5, 6 and 0.3 s")
        stage.server.stop()


def measure_deadline(stage, seconds):
    """While nothing answers, a call with a deadline must end for its client: as DEADLINE_EXCEEDED, a little after."""
    began = time.monotonic()
    command = [str(stage.options.loadgen or ""), "--target", stage.address, "-n", "crash-best-effort", "--mix", "get=100"]
    if stage.options.loadgen is not None and "best-effort" in stage.durabilities and seconds >= 1:
        report = stage.folder / "deadline.json"
        report.unlink(missing_ok=True)
        command += ["-c", "1", "-m", "4", "-t", "1", "--cores", "none", "--warm-up", "0s", "--duration", "500ms", "--rate", "40"]
        command += ["--deadline", "200ms", "--drain", "1s", "--quiet", "--json", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
        took = time.monotonic() - began
        found = json.loads(report.read_text()) if report.exists() else {}
        outcomes = dict(found.get("measured", {}).get("outcomes", []))
        if took > 8 or outcomes.get("OK", 0) or not outcomes.get("DEADLINE_EXCEEDED", 0):
            stage.problems.append(f"calls to a stopped server ended as {outcomes} after {took:.1f} s: {done.stderr[-300:]}")
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def await_success(stage, seconds_max, when, durabilities=None):
    """Waits until a write to every namespace is acknowledged again, on both shards."""
    end = time.monotonic() + seconds_max
    missing = {f"crash-{durability}" for durability in (durabilities or stage.durabilities)}
    last = {}
    number = 0
    while missing and time.monotonic() < end:
        for namespace in sorted(missing):
            # So many ids that both shards own some.
            if all((last := put_probe(stage, namespace, f"{BESIDE}{number + side}")).kind == "ok" for side in range(12)):
                missing.discard(namespace)
        number += 12
        time.sleep(0.05)
    if missing:
        stage.problems.append(f"{when}, {sorted(missing)} take no writes for {seconds_max} s: {last} {last.body if last else ''}")
    return not missing


def put_probe(stage, namespace, name):
    """A write beside the ledger, deleted again at once."""
    api = Api(stage.address)
    answer = api.call("Put", {"namespace": namespace, "id": name, "items": [{"key": "YQ==", "value": "YQ=="}]}, deadline_ms=2000)
    if answer.kind == "ok":
        answer = api.call("Delete", {"namespace": namespace, "id": name}, deadline_ms=2000)
    api.close()
    return answer


# --- a full disk ------------------------------------------------------------------------------------------------------


def full(options, folder, seed):
    """The disk fills up under load: refusals before anything is promised, nothing lost, recovery by itself; then again
    with a crash while it is full, and with a crash and so little room that the gateway starts and the store lags."""
    folder.mkdir(parents=True)
    with small_disk(folder) as disk:
        stage = Stage(options, folder / "stage", seed, data=disk / "data", load=False)
        with cleanly(stage):
            stage.start()
            stage.create_namespaces()
            work(stage, 1.0)
            stage.check()
            for what, room in (("full", None), ("full, killed while full", 0), ("full, killed, started with little room", 192 << 10)):
                fill(disk)
                refused = work_until_refused(stage, disk)
                if room is not None:
                    stage.kill()
                    leave(disk, room)
                    if not start_while_full(stage):
                        (disk / "ballast").unlink()
                        stage.start()
                elif stage.server.process.poll() is not None:
                    raise Failure("the server ended while its disk was full")
                # A swap that the store has not judged yet makes reads of its item wait: counters are for later.
                stage.check(counters=False)
                (disk / "ballast").unlink(missing_ok=True)
                await_success(stage, 20.0, "after space was freed")
                work(stage, 1.0)
                stage.await_quiet()
                for writer in stage.writers:
                    if not writer.settle(stage.address, 20):
                        stage.problems.append(f"{writer.name}: writes are still unknown: {writer.reasons}")
                stage.check()
                print(f"    {what}: refused as {refused}", flush=True)
                if stage.problems:
                    raise Failure(f"with a disk that was {what}")
            stage.conclude()
            tell(stage, "three times full")
            stage.server.stop()
            stage.start()
            stage.check()
            stage.server.stop()


def why_no_loop():
    """Why a loop file system cannot be had here; None if it can."""
    with tempfile.TemporaryDirectory(prefix="prism-loop-") as folder:
        try:
            with small_disk(Path(folder)):
                return None
        except Failure as failure:
            return str(failure)


@contextlib.contextmanager
def small_disk(folder):
    image, mount = folder / "disk.img", folder / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    steps = (["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", str(image)], ["mount", "-o", "loop", str(image), str(mount)])
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
            problem = done.stderr.strip() if done.returncode else None
        except OSError as error:
            problem = str(error)
        if problem:
            raise Failure(
                f"a small file system is not to be had here: `{' '.join(step)}`: {problem}. This needs root and loop devices; "
                "set PRISM_TEST_NO_LOOP=1 to go without this scenario"
            )
    try:
        yield mount
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(mount)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        image.unlink(missing_ok=True)


def fill(disk):
    """Takes all space that is left."""
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        for step in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(step)) == step:
                    pass


def leave(disk, room):
    """Leaves about so many bytes free."""
    fill(disk)
    ballast = disk / "ballast"
    os.truncate(ballast, max(0, ballast.stat().st_size - room))


def work(stage, seconds):
    stage.begin()
    time.sleep(seconds)
    stage.end()


def work_until_refused(stage, disk):
    """Writes until every namespace refuses, which the log may put off for as long as it has segments."""
    end = time.monotonic() + 40
    before = dict(stage.reasons())
    # A swap waits for the store's verdict, so not too patiently.
    stage.begin(timeout=3.0)
    big = Api(stage.address)
    refused, number = {}, time.monotonic_ns()
    while time.monotonic() < end and len(refused) < len(stage.durabilities):
        fill(disk)
        for durability in stage.durabilities:
            # Large, so that segments are used up in seconds; always new, so that the store must grow.
            number += 1
            body = {"namespace": f"crash-{durability}", "id": f"{BESIDE}{number}", "items": [{"key": "YQ==", "value": "A" * 900_000}]}
            answer = big.call("Put", body)
            if answer.kind == "refused" and answer.code == "resource_exhausted":
                refused[durability] = answer.reason
            elif answer.kind == "wrong":
                stage.problems.append(f"with a full disk, a write at {durability} ended as {answer}")
    time.sleep(1.0)
    stage.end()
    for durability in set(stage.durabilities) - set(refused):
        stage.problems.append(f"with a full disk, writes at {durability} were never refused with RESOURCE_EXHAUSTED")
    big.close()
    new = {name: count - before.get(name, 0) for name, count in stage.reasons().items() if count > before.get(name, 0)}
    return f"{refused}; writers saw {new}"


def start_while_full(stage):
    """A start brings the store up to date first. If the store has no room for that, the start must fail in order and
    say so; if it has, the gateway serves. Says whether it does."""
    stage.spawn()
    if stage.await_ready():
        return True
    status, end = stage.server.process.poll(), stage.server.tail(2)
    stage.server.kill()
    if status != 4 or "full" not in end:
        stage.problems.append(f"on a full disk the start ended with status {status}: {end}")
    print(f"    a start on the full disk: status {status}, {end.splitlines()[-1]}", flush=True)
    return False


# --- flipped bits -----------------------------------------------------------------------------------------------------


def flip(options, folder, seed):
    """One bit of a segment flips while the server is down: all is recovered, or that lane is held and says so, while the
    other serves. With the bit put right, everything is there."""
    stage = Stage(options, folder, seed)
    held = served = 0
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        for round_number in range(options.flips):
            work(stage, 0.5)
            stage.kill()
            lane, place, whole = flip_one(stage)
            damaged, verdict = verify(stage, lane)
            stage.spawn()
            state = await_state(stage)
            if damaged != (state == "held"):
                stage.problems.append(f"{place}: the server is {state}, and `prism wal verify` says {verdict}")
            if state == "ready":
                served += 1
                stage.check(load=False)
            elif state == "held":
                held += 1
                check_held(stage, place)
            else:
                stage.problems.append(f"{place}: the server ended instead ({verdict}): {stage.server.tail(4)}")
            stage.kill()
            path, offset, byte = whole
            if state != "ready":
                write_byte(path, offset, byte)
            stage.start()
            if not stage.check(load=round_number % 4 == 3):
                raise Failure(f"round {round_number + 1}: {place}, state {state}")
        stage.conclude()
        tell(stage, f"{options.flips} bits: {held} times a lane was held, {served} times all was recovered")
        if held == 0:
            stage.problems.append("no flipped bit was noticed: the scenario shows nothing")
        stage.server.stop()


def flip_one(stage):
    """Flips a bit in the used part of a lane; says which, and what restores it."""
    wal = stage.data / "wal"
    lanes = inspect(stage, wal)
    lane = stage.random.choice(lanes)
    used = [segment for segment in lane["segments"] if segment["groups"] and segment["listed"]]
    segment = stage.random.choice(used)
    path = wal / f"lane-{lane['lane']:08x}-{segment['segment']:016x}.segment"
    # Groups stand behind two blocks of headers.
    offset = stage.random.randrange(2 * 4096 + segment["bytes_used"])
    bit = 1 << stage.random.randrange(8)
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    write_byte(path, offset, byte ^ bit)
    place = f"lane {lane['lane']}, segment {segment['segment']}, byte {offset}, bit {bit:#x}"
    return lane["lane"], place, (path, offset, byte)


def inspect(stage, wal):
    command = [str(stage.options.binary), "wal", "inspect", str(wal), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
    if done.returncode != 0:
        raise Failure(f"`prism wal inspect` ended with status {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def verify(stage, lane):
    """Whether the tool calls the lane damaged, and in what words."""
    command = [str(stage.options.binary), "wal", "verify", str(stage.data / "wal"), "--lane", str(lane)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
    return done.returncode == 1, f"{done.stdout.strip()} {done.stderr.strip()} (status {done.returncode})"


def write_byte(path, offset, byte):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([byte]))
        file.flush()
        os.fsync(file.fileno())


def await_state(stage):
    """ready, held (it serves and is not ready because of a lane), or ended."""
    end = time.monotonic() + 30
    status, text = 0, ""
    while time.monotonic() < end:
        if stage.server.process.poll() is not None:
            return "ended"
        status, text = stage.probe("/readyz")
        if status == 200:
            return "ready"
        if status == 503 and ("held" in text or "lane" in text):
            return "held"
        time.sleep(0.02)
    return f"neither ready nor held after 30 s: {status} {text!r}"


def check_held(stage, place):
    """Some ids are refused as LANE_HELD, the others are served and right; writes likewise."""
    refused = read = 0
    for writer in stage.writers:
        unread = writer.check(stage.address)
        strange = {reason: count for reason, count in unread.items() if reason != "LANE_HELD"}
        if strange:
            stage.problems.append(f"{place}: {writer.name}: cannot be read: {strange}")
        refused += sum(unread.values())
        read += len(writer.ids) - sum(unread.values())
    if not read or (not refused and "strong" in stage.durabilities):
        stage.problems.append(f"{place}: a lane is held; {read} ids were served and {refused} refused")


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)


SCENARIOS = {"checker": checker, "kill": kill, "recovery": recovery, "stall": stall, "full": full, "flip": flip, "power": power,
             "chaos": chaos, "log": log, "net": net, "storm": storm}
# Those that run when none is named: a bad network alone is part of two others.
DEFAULT = [name for name in SCENARIOS if name != "net"]
# Those that need loop devices.
ON_LOOPS = ("full", "power")
