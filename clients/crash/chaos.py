"""Two gateways that share a catalog and a store, both in PostgreSQL: all three are killed in turn under load, and calls are
cancelled, time out and lose their connections."""

import re
import subprocess
import threading
import time

from api import Api
from postgres import Postgres
from server import Failure, Server
from stage import BESIDE, Stage, cleanly, tell
from writers import Writer, item

CONNECTIONS_MAX = 4
# Longest time until calls succeed after a kill: a gateway finds its server again, and a server replays its log.
RECOVERY_SECONDS_MAX = 60
STORM_SECONDS_MAX = 3600


class FleetWriter(Writer):
    """A writer of a store that keeps its promises by its own commit: there are no records to be numbered."""

    def promise(self, attempt, result):
        if result.get("durability") != self.durability or not result.get("applied"):
            self.problem(f"{attempt.method} {attempt.sequence}: acknowledged as {result}, not {self.durability} and applied")


class Fleet(Stage):
    """The server, two gateways, and writers on both, who share counters."""

    def __init__(self, options, folder, seed):
        super().__init__(options, folder, seed, load=False, writer=FleetWriter)
        self.postgres = Postgres(folder / "postgres")
        self.postgres.start()
        for database in ("catalog", "store"):
            self.postgres.sql("postgres", f"CREATE DATABASE {database}")
        config = folder / "prism.yaml"
        config.write_text(
            "embedded: memory\nshards: 2\npin_shards: false\n"
            f'catalog: {{url: "{self.postgres.url("catalog")}"}}\n'
            f'stores: {{orders: {{kind: postgres, url: "{self.postgres.url("store")}", pool_max: {CONNECTIONS_MAX}}}}}\n'
        )
        self.gateways = []
        for number in range(2):
            home = folder / f"gateway-{number}"
            home.mkdir()
            self.gateways.append(Server(options.binary, home, "--config", str(config)))
        self.server = self.gateways[0]

    def start(self):
        for gateway in self.gateways:
            gateway.start()

    def create_namespaces(self):
        for durability in self.durabilities:
            self.create(f"crash-{durability}", durability)

    def create(self, name, durability):
        # Whoever reads at one gateway sees what was written at the other.
        needs = f"{{durability: {durability}, consistency: strong}}"
        yaml = f"namespace: {name}\nteam: crash\nclient_api: keyvalue\nneeds: {needs}\n"
        answer = Api(self.address, 60).call("Create", {"yaml": yaml}, service="prism.admin.v1.Namespaces")
        if answer.kind != "ok":
            raise Failure(f"cannot create the namespace {name}: {answer} {answer.body}")
        # The other gateway follows within a tenth of a second.
        self.await_success("after a create", [name])

    def run_writer(self, writer, timeout):
        """Half of the writers use one gateway, half the other, whether it lives or not."""
        gateway = self.gateways[self.writers.index(writer) % 2]
        try:
            while not self.stop_event.is_set():
                writer.run(gateway.address, self.stop_event, timeout)
        except Exception as error:  # noqa: BLE001 a broken writer is a failure of the run, whatever broke it
            self.problems.append(f"{writer.name}: the writer itself failed: {type(error).__name__}: {error}")

    def kill_gateway(self, number):
        self.server = self.gateways[number]
        try:
            self.kill()
        finally:
            self.server = self.gateways[0]

    def await_success(self, when, names=None):
        """Waits until both gateways take writes to all namespaces."""
        end = time.monotonic() + RECOVERY_SECONDS_MAX
        for gateway in self.gateways:
            for name in names or [f"crash-{durability}" for durability in self.durabilities]:
                body = {"namespace": name, "id": f"{BESIDE}probe", "items": [item("v")]}
                # A new connection each time, so that both shards, which have connections of their own, are asked.
                succeeded = 0
                while succeeded < 12:
                    api = Api(gateway.address)
                    last = api.call("Put", body)
                    api.close()
                    succeeded = succeeded + 1 if last.kind == "ok" else 0
                    if time.monotonic() > end:
                        raise Failure(f"{when}: writes do not succeed within {RECOVERY_SECONDS_MAX} s: {last} {last.body}")
                    time.sleep(0 if succeeded else 0.02)

    def check_both(self):
        """What one gateway shows the other shows, too."""
        for gateway in self.gateways:
            self.server = gateway
            self.check()
        self.server = self.gateways[0]
        return not self.problems

    def abandon(self):
        if self.stop_event is not None:
            self.stop_event.set()
        for gateway in self.gateways:
            gateway.kill()
        self.postgres.stop()


def chaos(options, folder, seed):
    """SIGKILL of PostgreSQL and of two gateways on it in turn under load: nothing lost, nothing applied twice."""
    stage = Fleet(options, folder, seed)
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        for round_number in range(1, options.rounds + 1):
            stage.begin(timeout=5.0)
            stage.await_success(f"round {round_number}")
            for victim in stage.random.sample(("server", 0, 1), 3):
                time.sleep(stage.random.uniform(0.1, 0.6))
                if victim == "server":
                    stage.postgres.kill()
                    time.sleep(stage.random.uniform(0, 0.3))
                    stage.postgres.start()
                else:
                    stage.kill_gateway(victim)
                    stage.gateways[victim].start()
                stage.await_success(f"round {round_number}, after the kill of {victim}")
            time.sleep(0.2)
            stage.end()
            for writer in stage.writers:
                if not writer.settle(stage.address, RECOVERY_SECONDS_MAX):
                    stage.problems.append(f"{writer.name}: {len(writer.again)} writes are still unknown: {writer.reasons}")
            if not stage.check_both():
                raise Failure(f"after round {round_number}")
        stage.conclude()
        counted = sum(max(counter.done, default=0) for shared in stage.counters.values() for counter, _ in shared.values())
        if counted == 0 or stage.counts()["ok"] == 0:
            stage.problems.append("nothing was written: the scenario shows nothing")
        tell(stage, f"{options.rounds} rounds of three kills, counters reached {counted}")
        for gateway in stage.gateways:
            gateway.stop()


def storm(options, folder, seed):
    """Calls that are cancelled, time out or lose their connection get no answer of another; connections stay in their bound."""
    stage = Fleet(options, folder, seed)
    with cleanly(stage):
        stage.start()
        # Each load generator knows all that was ever written to its own.
        for name in ("storm-0", "storm-1"):
            stage.create(name, "best-effort")
        command = [str(options.loadgen), "--mix", "put=50,get=50", "--distribution", "uniform", "--keys", "2000"]
        command += ["--value", "uniform:24-512", "-c", "4", "-t", "1", "--cores", "none", "--warm-up", "0s", "--verify", "fresh", "--quiet"]
        # Of every ten calls one is cancelled; a part of those with a short deadline run out of time.
        cancelled = [*command, "-n", "storm-0", "--target", stage.gateways[0].address, "--requests", str(options.calls * 3 // 4), "-m", "16"]
        cancelled += ["--cancel", "10%", "--disconnect", "0.1%", "--seed", str(seed)]
        late = [*command, "-n", "storm-1", "--target", stage.gateways[1].address, "--requests", str(options.calls // 4), "-m", "16"]
        late += ["--deadline", "50ms", "--seed", str(seed + 1)]
        end, highest = threading.Event(), [0]
        watch = threading.Thread(target=watch_connections, args=(stage, end, highest), daemon=True)
        watch.start()
        with (folder / "storm.log").open("ab") as output:
            runs = [subprocess.Popen(one, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT) for one in (cancelled, late)]
            try:
                statuses = [run.wait(timeout=STORM_SECONDS_MAX) for run in runs]
            finally:
                for run in runs:
                    run.kill()
        end.set()
        watch.join(timeout=60)
        text = (folder / "storm.log").read_text(errors="replace")
        if any(status == 4 for status in statuses) or not all(status in (0, 1) for status in statuses):
            stage.problems.append(f"the load generators ended with {statuses}:\n{text[-3000:]}")
        if not 0 < highest[0] <= 2 * CONNECTIONS_MAX:
            stage.problems.append(f"{highest[0]} connections were open at a time; {2 * CONNECTIONS_MAX} are allowed")
        # What the load generators counted themselves: a run that ended early must not pass for a whole one.
        made = sum(int(count.replace(",", "")) for count in re.findall(r"^([\d,]+) requests in ", text, re.MULTILINE))
        if made < options.calls * 8 // 10:
            stage.problems.append(f"{made} calls were made, and {options.calls} asked for:\n{text[-3000:]}")
        print(f"    {made} calls, no wrong answer; {highest[0]} of {2 * CONNECTIONS_MAX} connections at the most", flush=True)
        for gateway in stage.gateways:
            gateway.stop()


def watch_connections(stage, end, highest):
    """Looks at the server's own list until told to end."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'prism' AND datname = 'store'"
    try:
        while not end.is_set():
            highest[0] = max(highest[0], int(stage.postgres.sql("postgres", statement)))
            end.wait(0.05)
    except (Failure, ValueError, subprocess.TimeoutExpired) as failure:
        stage.problems.append(f"the connections cannot be counted: {failure}")
