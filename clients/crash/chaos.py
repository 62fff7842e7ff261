"""Gateways on a server's store, and the server, are killed in turn under load, and calls are cancelled, time out and lose
their connections. On PostgreSQL two gateways share a catalog and the store; on Redis the log of one stands before it."""

import re
import subprocess
import threading
import time

from api import Api
from postgres import Postgres
from redis_server import Redis
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


class OnServer(Stage):
    """Gateways on a store that is a server, and writers on all of them, who share counters."""

    def __init__(self, options, folder, seed, writer):
        super().__init__(options, folder, seed, load=False, writer=writer)
        self.gateways, self.servers = [], []

    def serve(self, store, gateways, more=""):
        """Makes the gateways' configuration, and the gateways."""
        self.store = store
        config = self.folder / "prism.yaml"
        config.write_text(
            f"embedded: memory\nshards: 2\npin_shards: false\n{more}"
            f"stores: {{orders: {{{store.entries()}, pool_max: {CONNECTIONS_MAX}}}}}\n"
        )
        for number in range(gateways):
            home = self.folder / f"gateway-{number}"
            home.mkdir()
            self.gateways.append(Server(self.options.binary, home, "--config", str(config)))
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
        # Another gateway follows within a tenth of a second.
        self.await_success("after a create", [name])

    def run_writer(self, writer, timeout):
        """Half of the writers use one gateway, half the other, whether it lives or not."""
        gateway = self.gateways[self.writers.index(writer) % len(self.gateways)]
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
        """Waits until all gateways take writes to all namespaces."""
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

    def check_all(self):
        """What one gateway shows the others show, too."""
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
        for server in self.servers:
            server.stop()


class Fleet(OnServer):
    """Two gateways that share a catalog and a store, both in PostgreSQL."""

    def __init__(self, options, folder, seed):
        super().__init__(options, folder, seed, FleetWriter)
        postgres = Postgres(folder / "postgres")
        self.servers.append(postgres)
        postgres.start()
        for database in ("catalog", "store"):
            postgres.sql("postgres", f"CREATE DATABASE {database}")
        self.serve(postgres, 2, f'catalog: {{url: "{postgres.url("catalog")}"}}\n')


class Solo(OnServer):
    """A gateway whose log stands before a server."""

    def __init__(self, options, folder, seed):
        super().__init__(options, folder, seed, Writer)
        redis = Redis(folder / "redis")
        self.servers.append(redis)
        redis.start()
        self.serve(redis, 1, "wal: {segment_bytes: 4MiB}\n")


def chaos(options, folder, seed):
    """SIGKILL of PostgreSQL and of two gateways on it in turn under load: nothing lost, nothing applied twice."""
    kill_in_turn(Fleet(options, folder, seed), options)


def redis(options, folder, seed):
    """SIGKILL of Redis and of a gateway on it in turn under load: nothing lost, nothing applied twice."""
    kill_in_turn(Solo(options, folder, seed), options)


def kill_in_turn(stage, options):
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        victims = ("server", *range(len(stage.gateways)))
        for round_number in range(1, options.rounds + 1):
            stage.begin(timeout=5.0)
            stage.await_success(f"round {round_number}")
            for victim in stage.random.sample(victims, len(victims)):
                time.sleep(stage.random.uniform(0.1, 0.6))
                if victim == "server":
                    stage.store.kill()
                    time.sleep(stage.random.uniform(0, 0.3))
                    stage.store.start()
                else:
                    stage.kill_gateway(victim)
                    stage.gateways[victim].start()
                stage.await_success(f"round {round_number}, after the kill of {victim}")
            time.sleep(0.2)
            stage.end()
            for writer in stage.writers:
                if not writer.settle(stage.address, RECOVERY_SECONDS_MAX):
                    stage.problems.append(f"{writer.name}: {len(writer.again)} writes are still unknown: {writer.reasons}")
            if not stage.check_all():
                raise Failure(f"after round {round_number}")
        stage.conclude()
        counted = sum(max(counter.done, default=0) for shared in stage.counters.values() for counter, _ in shared.values())
        if counted == 0 or stage.counts()["ok"] == 0:
            stage.problems.append("nothing was written: the scenario shows nothing")
        tell(stage, f"{options.rounds} rounds of {len(victims)} kills, counters reached {counted}")
        for gateway in stage.gateways:
            gateway.stop()


def storm(options, folder, seed):
    """Calls on PostgreSQL that are cancelled, time out or lose their connection get no answer of another; connections stay in their bound."""
    cancel_many(Fleet(options, folder, seed), options, folder, seed)


def redis_storm(options, folder, seed):
    """Calls on Redis that are cancelled, time out or lose their connection get no answer of another; connections stay in their bound."""
    cancel_many(Solo(options, folder, seed), options, folder, seed)


def cancel_many(stage, options, folder, seed):
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
        late = [*command, "-n", "storm-1", "--target", stage.gateways[-1].address, "--requests", str(options.calls // 4), "-m", "16"]
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
        allowed = len(stage.gateways) * CONNECTIONS_MAX
        if not 0 < highest[0] <= allowed:
            stage.problems.append(f"{highest[0]} connections were open at a time; {allowed} are allowed")
        # What the load generators counted themselves: a run that ended early must not pass for a whole one.
        made = sum(int(count.replace(",", "")) for count in re.findall(r"^([\d,]+) requests in ", text, re.MULTILINE))
        if made < options.calls * 8 // 10:
            stage.problems.append(f"{made} calls were made, and {options.calls} asked for:\n{text[-3000:]}")
        print(f"    {made} calls, no wrong answer; {highest[0]} of {allowed} connections at the most", flush=True)
        for gateway in stage.gateways:
            gateway.stop()


def watch_connections(stage, end, highest):
    """Looks at the server's own list until told to end."""
    try:
        while not end.is_set():
            highest[0] = max(highest[0], stage.store.connections())
            end.wait(0.05)
    except (OSError, Failure, ValueError, subprocess.TimeoutExpired) as failure:
        stage.problems.append(f"the connections cannot be counted: {failure}")
