"""Everything that a scenario needs: the server in a folder of its own, writers, load generators, and the check.

Promises: waits are bounded; exactly the processes that were started here are killed, by their own handles; what a check
finds wrong ends up in `problems`.
"""

import contextlib
import http.client
import json
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

from api import Api, unpack
from ledger import Counter
from server import START_SECONDS_MAX, Failure, Server
from writers import Journal, Writer

DURABILITIES = ("strong", "eventual", "best-effort")
WRITERS = 2
COUNTERS = 2
LOAD_RATES = {"strong": 800, "eventual": 300, "best-effort": 300}
TOOL_SECONDS_MAX = 60
# Ids that scenarios write beside the ledgers.
BESIDE = "beside-"
# Small segments, so that they are filled, closed and recycled all the time.
SETTINGS = ("--shards", "2", "--set", "pin_shards=false", "--set", "wal.segment_bytes=4MiB")


class Stage:
    def __init__(self, options, folder, seed, data=None, load=True, writer=Writer, namespaces=None):
        """`namespaces`: names and durabilities of those that have writers; without them one of each durability."""
        folder.mkdir(parents=True)
        self.options, self.folder, self.seed = options, folder, seed
        self.random = random.Random(f"{seed} stage")
        self.data = data or folder / "data"
        self.server = Server(options.binary, folder, *SETTINGS, data=self.data)
        self.journal = Journal(folder / "journal")
        self.problems = []
        self.writers, self.counters = [], {}
        self.durabilities = [name for name in DURABILITIES if name in options.durabilities]
        self.with_load = load and options.loadgen is not None
        self.load, self.threads, self.stop_event = [], [], None
        self.load_runs = 0
        # Whose load generators' journals are checked.
        self.loads_checked = self.durabilities
        self.namespaces = namespaces if namespaces is not None else {f"crash-{name}": name for name in self.durabilities}
        for namespace, durability in self.namespaces.items():
            shared = {f"counter-{index}": (Counter(), threading.Lock()) for index in range(COUNTERS)}
            self.counters[namespace] = shared
            promise = "DURABILITY_" + durability.upper().replace("-", "_")
            for number in range(WRITERS):
                self.writers.append(writer(number, namespace, promise, seed, shared, self.journal, self.problems))

    # --- the server -----------------------------------------------------------------------------------------------

    @property
    def address(self):
        return self.server.address

    def spawn(self):
        """Starts the server without waiting for anything."""
        with self.server.log.open("ab") as output:
            self.server.process = subprocess.Popen(
                self.server.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )

    def create_namespaces(self):
        for durability in self.durabilities:
            yaml = f"namespace: crash-{durability}\nteam: crash\nclient_api: keyvalue\nneeds:\n  durability: {durability}\n"
            answer = Api(self.address).call("Create", {"yaml": yaml}, service="prism.admin.v1.Namespaces")
            if answer.kind != "ok":
                raise Failure(f"cannot create the namespace crash-{durability}: {answer} {answer.body}")

    def await_ready(self, seconds_max=START_SECONDS_MAX):
        """Waits until /readyz says 200. Returns False when the process ends or the time is up."""
        end = time.monotonic() + seconds_max
        while time.monotonic() < end and self.server.process.poll() is None:
            if self.probe("/readyz")[0] == 200:
                return True
            time.sleep(0.01)
        return False

    def probe(self, path):
        """Status and text of a GET; status 0 when there is no answer."""
        connection = http.client.HTTPConnection(self.address, timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def start(self):
        self.server.start()

    def kill(self):
        """A crash: the process is gone in the middle of whatever it did."""
        if self.server.process.poll() is not None:
            self.problems.append(f"the server ended by itself with status {self.server.process.returncode}")
        self.server.kill()
        output = self.server.output()
        if "panicked at" in output:
            self.problems.append("the server panicked: " + output[output.index("panicked at") :][:300])

    def stand_still(self, seconds_max):
        """Stops the process where it is, and waits until all its threads stand."""
        self.server.process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + seconds_max
        tasks = Path(f"/proc/{self.server.pid}/task")
        while time.monotonic() < end:
            try:
                texts = [(task / "stat").read_text() for task in tasks.iterdir()]
            except OSError:
                continue  # a thread ended meanwhile
            # Behind the name, which is in brackets, comes the state. The kernel's workers for the ring do not stop.
            threads = [text.rpartition(")") for text in texts]
            if all(rest.split()[0] in "TZX" for name, _, rest in threads if "(iou-" not in name):
                return
            time.sleep(0.001)
        raise Failure(f"the process does not stand still {seconds_max} s after SIGSTOP")

    # --- load -----------------------------------------------------------------------------------------------------

    def begin(self, timeout=10.0, deadline_ms=None):
        """Writers and load generators begin to work."""
        self.stop_event = threading.Event()
        for writer in self.writers:
            writer.deadline_ms = deadline_ms
            thread = threading.Thread(target=self.run_writer, args=(writer, timeout), daemon=True)
            thread.start()
            self.threads.append(thread)
        if self.with_load:
            for durability in self.durabilities:
                self.load.append(self.begin_load(durability))

    def run_writer(self, writer, timeout):
        try:
            writer.run(self.address, self.stop_event, timeout)
        except Exception as error:  # noqa: BLE001 a broken writer is a failure of the run, whatever broke it
            self.problems.append(f"{writer.name}: the writer itself failed: {type(error).__name__}: {error}")

    def begin_load(self, durability):
        self.load_runs += 1
        command = [str(self.options.loadgen), "--target", self.address, "-n", f"load-{durability}", "--setup"]
        command += ["--durability", durability, "--mix", "put=85,get=15", "--distribution", "uniform", "--keys", "400"]
        command += ["--value", "uniform:64-1024", "-c", "2", "-m", "4", "-t", "1", "--cores", "none", "--warm-up", "0s"]
        command += ["--rate", str(LOAD_RATES[durability]), "--duration", "60s", "--drain", "500ms", "--deadline", "2s"]
        command += ["--seed", str(self.random.randrange(1 << 32)), "--quiet", "--journal", str(self.load_journal(durability))]
        with (self.folder / "load.log").open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def load_journal(self, durability):
        return self.folder / f"load-{durability}.journal"

    def end(self):
        """Writers and load generators stop, whether the server lives or not."""
        self.stop_event.set()
        for process in self.load:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.load:
            try:
                status = process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
                self.problems.append("a load generator did not end within 15 s of SIGTERM")
            if status == 4:
                text = (self.folder / "load.log").read_text(errors="replace")[-1500:]
                self.problems.append(f"the load generator got a wrong answer:\n{text}")
        for thread in self.threads:
            thread.join(timeout=30)
            if thread.is_alive():
                self.problems.append("a writer did not end within 30 s")
        self.load, self.threads = [], []

    def await_quiet(self, seconds_max=20):
        """Waits until no call waits and no record is on its way to the disk: only then are unknown outcomes settled."""
        end = time.monotonic() + seconds_max
        quiet = 0
        while quiet < 3:
            if time.monotonic() > end:
                self.problems.append(f"calls still wait {seconds_max} s after the last client left: {busy}")
                return
            lines = self.probe("/metrics")[1].splitlines()
            gauges = [line for line in lines if line.startswith(("prism_calls_waiting{", "prism_log_pending_bytes{"))]
            busy = [line for line in gauges if line.split()[-1] != "0"]
            # The gauges may be a few requests old.
            quiet = 0 if busy or not gauges else quiet + 1
            time.sleep(0.02)

    def abandon(self):
        """Ends everything, whatever state it is in."""
        if self.stop_event is not None:
            self.stop_event.set()
        for process in self.load:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.process.send_signal(signal.SIGCONT)
        self.server.kill()

    # --- checks ---------------------------------------------------------------------------------------------------

    def check(self, load=True, counters=True):
        """Nothing is under way: everything that was acknowledged must be there, and nothing else."""
        for writer in self.writers:
            unread = writer.check(self.address)
            if unread:
                self.problems.append(f"{writer.name}: cannot be read: {unread}")
        if counters:
            self.check_counters(Counter.observe)
        if load and self.with_load:
            for durability in self.loads_checked:
                self.check_load(durability)
        self.journal.flush()
        return not self.problems

    def check_counters(self, judge, namespaces=None):
        for namespace in namespaces or self.counters:
            for name, (counter, _) in self.counters[namespace].items():
                answer = Api(self.address).call("Get", {"namespace": namespace, "id": name})
                if answer.kind == "ok":
                    items = answer.body.get("items", [])
                    problem = judge(counter, unpack(items[0]["value"]) if items else None)
                else:
                    problem = f"cannot be read: {answer}"
                if problem:
                    self.problems.append(f"{namespace}/{name}: {problem}")

    def check_load(self, durability):
        journal = self.load_journal(durability)
        if not journal.exists():
            return
        command = [str(self.options.loadgen), "--target", self.address, "-n", f"load-{durability}", "--check-journal", str(journal)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
        if done.returncode != 0:
            self.problems.append(f"load-{durability}: status {done.returncode}: {done.stdout[-1500:]} {done.stderr[-500:]}")

    def conclude(self, seconds_max=30):
        """The last check: all unknown outcomes are resolved, counters add up, and there is no id that nobody wrote."""
        for writer in self.writers:
            if not writer.settle(self.address, seconds_max):
                self.problems.append(f"{writer.name}: {len(writer.again)} writes are still unknown after {seconds_max} s")
        self.check()
        self.check_counters(Counter.conclude)
        for namespace, counters in self.counters.items():
            known = {name for writer in self.writers if writer.namespace == namespace for name in writer.ids} | set(counters)
            strangers = {found for found in self.scan(namespace) if not found.startswith(BESIDE)} - known
            if strangers:
                self.problems.append(f"{namespace}: PHANTOM: ids that nobody wrote: {sorted(strangers)[:5]}")

    def scan(self, namespace):
        command = [str(self.options.binary), "kv", "scan", namespace, "--server", self.address, "--output", "json", "--timeout", "50s"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
        if done.returncode != 0:
            self.problems.append(f"scan of {namespace}: status {done.returncode}: {done.stderr[-500:]}")
            return
        for line in done.stdout.splitlines():
            found = json.loads(line)
            if "id" in found:
                yield found["id"]

    def counts(self):
        total = {}
        for writer in self.writers:
            for name, count in writer.counts.items():
                total[name] = total.get(name, 0) + count
        return total

    def reasons(self):
        total = {}
        for writer in self.writers:
            for name, count in writer.reasons.items():
                total[name] = total.get(name, 0) + count
        return total


@contextlib.contextmanager
def cleanly(stage):
    """Whatever happens, nothing is left running, and the folder stays when something is wrong."""
    try:
        yield
    except Failure as failure:
        stage.problems.append(str(failure))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        stage.problems.append(f"the scenario itself failed: {type(error).__name__}: {error}")
    finally:
        stage.abandon()
        stage.journal.flush()
    if stage.problems:
        tell(stage, "FAILED")
        shown = "\n".join(f"  - {problem}" for problem in stage.problems[:12])
        raise Failure(f"{len(stage.problems)} problems:\n{shown}\n  the folder {stage.folder} is kept")


def tell(stage, what):
    counts = ", ".join(f"{count} {name}" for name, count in stage.counts().items())
    print(f"    {what}; calls of the writers: {counts}; {stage.reasons()}", flush=True)
