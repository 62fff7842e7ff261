"""Gateways on real servers, and the servers, are killed in turn under load, the network between them is bad, and calls are
cancelled, time out and lose their connections.

    writers, load generators -> gateways -> a proxy for each server -> PostgreSQL, Redis, NATS

On all servers there is KeyValue or, on PostgreSQL, Queue, or, on NATS or else PostgreSQL, PubSub. Two gateways share a catalog in
PostgreSQL (`chaos`), or the log of one stands before the servers (`log`). Writers of both gateways share counters, and messages
are sent at one gateway and received at the other.
"""

import itertools
import json
import re
import subprocess
import threading
import time
from pathlib import Path

from api import Api
from loads import MessageLoad
from nats_server import Nats
from postgres import Postgres
from proxy import Proxy
from redis_server import Redis
from server import Failure, Server
from stage import BESIDE, Stage, cleanly, tell
from writers import Writer, item

SHARDS = 2
CONNECTIONS_MAX = 4
# A NATS has one connection of each shard, and one of the gateway's control.
NATS_CONNECTIONS_MAX = SHARDS + 1
# Longest time until calls succeed after a kill: a gateway finds its server again, and a server replays its log.
RECOVERY_SECONDS_MAX = 120
SUCCESSES = 4
STORM_SECONDS_MAX = 3600
# What a gateway may have in memory, with a debug build, while its servers are away and calls wait.
RESIDENT_BYTES_MAX = 1 << 30
SERVERS = {"postgres": Postgres, "redis": Redis, "nats": Nats}
# The JSON call that shows that an API is served.
PUT = ("prism.keyvalue.v1.KeyValue", "Put", lambda name: {"namespace": name, "id": f"{BESIDE}probe", "items": [item("v")]})
PUBLISH = ("prism.pubsub.v1.PubSub", "Publish", lambda name: {"namespace": name, "message": {"topic": "probe", "payload": ""}})


class FleetWriter(Writer):
    """A writer of a store that keeps its promises by its own commit: there are no records to be numbered."""

    def promise(self, attempt, result):
        if result.get("durability") != self.durability or not result.get("applied"):
            self.problem(f"{attempt.method} {attempt.sequence}: acknowledged as {result}, not {self.durability} and applied")


def places(stores, durabilities):
    """Namespaces of writers: their durability, and what else puts them onto the store of their name."""
    if "postgres" not in stores or "redis" not in stores:
        keyvalue = [store for store in stores if store != "nats"]
        return {f"{store}-{name}": (name, "") for store in keyvalue for name in durabilities}
    # KeyValue at strong lies in PostgreSQL, unless it is kept for a few days only; the rest lies in Redis.
    found = {f"redis-{name}": (name, ", retention: 1day") for name in durabilities}
    return {"postgres-strong": ("strong", ""), **found} if "strong" in durabilities else found


class OnServers(Stage):
    """Gateways on stores that are servers, and writers on all of them, who share counters."""

    def __init__(self, options, folder, seed, writer, gateways, network):
        self.places = places(options.stores, self.durabilities_of(options))
        super().__init__(
            options, folder, seed, load=False, writer=writer, namespaces={name: place[0] for name, place in self.places.items()}
        )
        self.gateways, self.servers, self.proxies, self.loads = [], [], [], []
        self.stores = {}
        self.probes = {name: PUT for name in self.places}
        self.ways = itertools.cycle(self.random.sample(("cut", "tear", "delay", "hold"), 4))
        try:
            more = self.start_servers()
            if network:
                for store in self.stores.values():
                    self.proxies.append(Proxy(store.port))
                    store.reached_at = self.proxies[-1].port
            self.make_gateways(gateways, more)
        except BaseException:
            self.abandon()
            raise

    def durabilities_of(self, options):
        return options.durabilities

    def start_servers(self):
        """Starts the servers of the stores; returns further lines of the gateways' configuration."""
        for name in self.options.stores:
            self.add(SERVERS[name](self.folder / name))
            self.stores[name] = self.servers[-1]
        if "postgres" in self.stores:
            self.stores["postgres"].sql("postgres", "CREATE DATABASE store")
        return ""

    def add(self, server):
        self.servers.append(server)
        server.start()

    def make_gateways(self, count, more):
        config = self.folder / "prism.yaml"
        pool = {"postgres": f", pool_max: {CONNECTIONS_MAX}", "redis": f", pool_max: {CONNECTIONS_MAX}", "nats": ""}
        entries = ", ".join(f"{name}: {{{store.entries()}{pool[name]}}}" for name, store in self.stores.items())
        config.write_text(f"embedded: memory\nshards: {SHARDS}\npin_shards: false\n{more}stores: {{{entries}}}\n")
        for number in range(count):
            home = self.folder / f"gateway-{number}"
            home.mkdir()
            self.gateways.append(Server(self.options.binary, home, "--config", str(config)))
        self.server = self.gateways[0]

    def start(self):
        for gateway in self.gateways:
            gateway.start()

    def create_namespaces(self):
        for name, (durability, more) in self.places.items():
            # Whoever reads at one gateway sees what was written at the other.
            self.create(name, f"{{durability: {durability}, consistency: strong{more}}}")

    def create(self, name, needs, api="keyvalue", probe=PUT):
        yaml = f"namespace: {name}\nteam: crash\nclient_api: {api}\nneeds: {needs}\n"
        answer = Api(self.address, 60).call("Create", {"yaml": yaml}, service="prism.admin.v1.Namespaces")
        if answer.kind != "ok":
            raise Failure(f"cannot create the namespace {name}: {answer} {answer.body}")
        self.check_place(name, json.dumps(answer.body))
        # Another gateway follows within a tenth of a second.
        if probe:
            self.probes[name] = probe
            self.await_success("after a create", [name])

    def check_place(self, name, answer):
        """A namespace lies in the server that it is named after: else the scenario shows nothing of that."""
        server = self.stores[name.partition("-")[0]]
        if server.name not in answer:
            raise Failure(f"the namespace {name} does not lie in {server.name}: {answer[:600]}")

    def create_loads(self):
        # Topics lie in PostgreSQL where there is no broker.
        home = next((name for name in ("nats", "postgres") if name in self.stores), None)
        if home:
            self.create(f"{home}-topics", "{durability: strong, ordered: true}", "pubsub", PUBLISH)
            self.loads.append(MessageLoad(self, "pubsub", f"{home}-topics", ["--publishers", "3", "--ordering-keys", "4"], rate=60))
        if "postgres" in self.stores:
            self.create("postgres-queue", "{durability: strong, ordered: true}", "queue", None)
            sides = ["--senders", "3", "--workers", "3", "--queue-keys", "4", "--lease", "2s"]
            self.loads.append(MessageLoad(self, "queue", "postgres-queue", sides, rate=30))

    def run_writer(self, writer, timeout):
        """Half of the writers use one gateway, half the other, whether it lives or not."""
        gateway = self.gateways[self.writers.index(writer) % len(self.gateways)]
        try:
            while not self.stop_event.is_set():
                writer.run(gateway.address, self.stop_event, timeout)
        except Exception as error:  # noqa: BLE001 a broken writer is a failure of the run, whatever broke it
            self.problems.append(f"{writer.name}: the writer itself failed: {type(error).__name__}: {error}")

    # --- what is done to them -------------------------------------------------------------------------------------

    def do(self, event):
        if event == "servers":
            for store in self.random.sample(list(self.stores.values()), len(self.stores)):
                store.kill()
                time.sleep(self.random.uniform(0, 0.3))
                store.start()
        elif event == "network":
            for _ in range(2):
                self.disturb(next(self.ways))
        else:
            self.server = self.gateways[event]
            try:
                self.kill()
            finally:
                self.server = self.gateways[0]
            self.gateways[event].start()

    def disturb(self, way):
        """Does something to all connections between gateways and servers."""
        if way == "cut":
            for _ in range(3):
                if not sum(proxy.cut() for proxy in self.proxies):
                    self.await_success("before a cut")
                time.sleep(self.random.uniform(0.02, 0.2))
        elif way == "tear":
            for proxy in self.proxies:
                proxy.tear()
            time.sleep(self.random.uniform(0.1, 0.3))
        elif way == "delay":
            for proxy in self.proxies:
                proxy.set_delay(self.random.uniform(0.005, 0.05))
            time.sleep(self.random.uniform(0.3, 0.6))
            for proxy in self.proxies:
                proxy.set_delay(0.0)
        else:
            for proxy in self.proxies:
                proxy.hold()
            time.sleep(self.random.uniform(0.2, 1.0))
            for proxy in self.proxies:
                # What was held arrives, or never does.
                if self.random.random() < 0.5:
                    proxy.cut()
                proxy.let_go()

    # --- checks ---------------------------------------------------------------------------------------------------

    def await_success(self, when, names=None):
        """Waits until all gateways serve all namespaces."""
        end = time.monotonic() + RECOVERY_SECONDS_MAX
        for gateway in self.gateways:
            for name in names or self.probes:
                service, method, body = self.probes[name]
                # A new connection each time, so that both shards, which have connections of their own, are asked.
                succeeded = 0
                while succeeded < SUCCESSES:
                    api = Api(gateway.address)
                    last = api.call(method, body(name), service=service)
                    api.close()
                    succeeded = succeeded + 1 if last.kind == "ok" else 0
                    if time.monotonic() > end:
                        raise Failure(f"{when}: calls to {name} do not succeed within {RECOVERY_SECONDS_MAX} s: {last} {last.body}")
                    time.sleep(0 if succeeded else 0.02)

    def check_all(self):
        """What one gateway shows the others show, too."""
        for gateway in self.gateways:
            self.server = gateway
            self.check()
            resident = resident_bytes(gateway.pid)
            if resident > RESIDENT_BYTES_MAX:
                self.problems.append(f"a gateway has {resident >> 20} MiB in memory")
        self.server = self.gateways[0]
        return not self.problems

    def abandon(self):
        if self.stop_event is not None:
            self.stop_event.set()
        for load in self.loads:
            load.abandon()
        for gateway in self.gateways:
            gateway.kill()
        for proxy in self.proxies:
            proxy.close()
        for server in self.servers:
            server.stop()


class Fleet(OnServers):
    """Two gateways that share a catalog in PostgreSQL."""

    def __init__(self, options, folder, seed, network):
        super().__init__(options, folder, seed, FleetWriter, gateways=2, network=network)

    def durabilities_of(self, options):
        """Gateways that share a catalog wait for the store at each durability: of several stores, two durabilities show that."""
        return [name for name in options.durabilities if name != "eventual" or len(options.stores) == 1]

    def start_servers(self):
        super().start_servers()
        if "postgres" not in self.stores:
            self.add(Postgres(self.folder / "postgres"))
        catalog = next(server for server in self.servers if isinstance(server, Postgres))
        catalog.sql("postgres", "CREATE DATABASE catalog")
        return f'catalog: {{url: "{catalog.url("catalog")}"}}\n'


class Solo(OnServers):
    """A gateway whose log stands before the servers."""

    def __init__(self, options, folder, seed, network):
        super().__init__(options, folder, seed, Writer, gateways=1, network=network)

    def start_servers(self):
        return super().start_servers() + "wal: {segment_bytes: 4MiB}\n"


def chaos(options, folder, seed):
    """SIGKILL of servers and of two gateways that share them in turn under load, and a bad network: nothing lost, nothing twice."""
    stage = Fleet(options, folder, seed, network=True)
    in_turn(stage, options, ("servers", "network", 0, 1))


def log(options, folder, seed):
    """SIGKILL of servers and of a gateway whose log stands before them in turn under load, and a bad network: nothing lost, nothing twice."""
    stage = Solo(options, folder, seed, network=True)
    in_turn(stage, options, ("servers", "network", 0))


def net(options, folder, seed):
    """A bad network between a gateway and its servers; connections are cut, torn, delayed and held: nothing lost, nothing twice."""
    stage = Solo(options, folder, seed, network=True)
    in_turn(stage, options, ("network", "network"))


def in_turn(stage, options, events):
    with cleanly(stage):
        stage.start()
        stage.create_namespaces()
        stage.create_loads()
        for load in stage.loads:
            load.start()
        for round_number in range(1, options.rounds + 1):
            stage.begin(timeout=5.0)
            stage.await_success(f"round {round_number}")
            for event in stage.random.sample(events, len(events)):
                time.sleep(stage.random.uniform(0.1, 0.6))
                stage.do(event)
                stage.await_success(f"round {round_number}, after {event}")
            time.sleep(0.2)
            stage.end()
            for writer in stage.writers:
                if not writer.settle(stage.address, RECOVERY_SECONDS_MAX):
                    stage.problems.append(f"{writer.name}: {len(writer.again)} writes are still unknown: {writer.reasons}")
            if not stage.check_all():
                raise Failure(f"after round {round_number}")
        for load in stage.loads:
            print(f"    {load.finish()}", flush=True)
        stage.conclude()
        counted = sum(max(counter.done, default=0) for shared in stage.counters.values() for counter, _ in shared.values())
        if stage.writers and (counted == 0 or stage.counts()["ok"] == 0):
            stage.problems.append("nothing was written: the scenario shows nothing")
        tell(stage, f"{options.rounds} rounds of {len(events)} events, counters reached {counted}")
        for gateway in stage.gateways:
            gateway.stop()


# --- calls that are given up ------------------------------------------------------------------------------------------


def storm(options, folder, seed):
    """Calls that are cancelled, time out or lose their connection get no answer of another; connections stay in their bound."""
    stage = Fleet(options, folder, seed, network=False)
    with cleanly(stage):
        stage.start()
        commands = storm_commands(stage, seed)
        end, highest = threading.Event(), dict.fromkeys(stage.stores, 0)
        watch = threading.Thread(target=watch_connections, args=(stage, end, highest), daemon=True)
        watch.start()
        logs = [folder / f"storm-{number}.log" for number in range(len(commands))]
        runs = [begin(command, log_file) for command, log_file in zip(commands, logs)]
        try:
            statuses = [run.wait(timeout=STORM_SECONDS_MAX) for run in runs]
        finally:
            for run in runs:
                run.kill()
        end.set()
        watch.join(timeout=60)
        for status, log_file in zip(statuses, logs):
            # 1: an objective of the load generator, such as too many errors, which those out of time are.
            if status not in (0, 1):
                stage.problems.append(f"a load generator ended with {status}:\n{log_file.read_text(errors='replace')[-2500:]}")
        judge_storm(stage, logs, highest)
        for gateway in stage.gateways:
            gateway.stop()


def begin(command, log_file):
    with log_file.open("ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def storm_commands(stage, seed):
    """Makes the namespaces; returns the load generators' commands. Each knows all that was ever written to its own. Of every ten calls of
    the one of a store one is cancelled; a part of those of the other, with a short deadline, run out of time."""
    first, last = stage.gateways[0].address, stage.gateways[-1].address
    keyvalue = [name for name in stage.stores if name != "nats"]
    both = ["-t", "1", "--cores", "none", "--warm-up", "0s", "--quiet"]
    items = [*both, "--mix", "put=50,get=50", "--distribution", "uniform", "--keys", "2000", "-c", "4", "-m", "16"]
    items += ["--value", "uniform:24-512", "--verify", "fresh"]
    messages = [*both, "--value", "100", "--drain", "60s", "--durability", "strong", "--duration", "60m"]
    loads = []
    for store in keyvalue:
        more = ", retention: 1day" if store == "redis" else ""
        loads.append((f"{store}-items", "keyvalue", f"{{durability: strong, consistency: strong{more}}}", items, stage.options.calls // len(keyvalue)))
    if "nats" in stage.stores:
        pubsub = [*messages, "--pubsub", "--publishers", "6", "--receive-at", last]
        loads.append(("nats-events", "pubsub", "{durability: strong, ordered: true}", pubsub, stage.options.message_calls))
    if "postgres" in stage.stores:
        # A message takes two calls and more: it is sent, received and acked, some of them together.
        queue = [*messages, "--queue", "--lease", "2s", "--receive-at", last]
        loads.append(("postgres-work", "queue", "{durability: strong}", queue, stage.options.message_calls // 2))
    commands = []
    for name, api, needs, command, calls in loads:
        for kind, share, faults in (
            ("cut", 0.75, ["--cancel", "10%", "--disconnect", "0.1%"]),
            ("late", 0.25, ["--deadline", "50ms" if api == "keyvalue" else "300ms"]),
        ):
            stage.create(f"{name}-{kind}", needs, api, None)
            target = last if kind == "late" and api == "keyvalue" else first
            seed += 1
            commands.append([str(stage.options.loadgen), *command, "-n", f"{name}-{kind}", "--target", target,
                             "--requests", str(int(calls * share)), "--seed", str(seed), *faults])
    return commands


def judge_storm(stage, logs, highest):
    for name, count in highest.items():
        each = NATS_CONNECTIONS_MAX if name == "nats" else CONNECTIONS_MAX
        allowed = len(stage.gateways) * each
        if not 0 < count <= allowed:
            stage.problems.append(f"{name}: {count} connections were open at a time; {allowed} are allowed")
    texts = [log_file.read_text(errors="replace") for log_file in logs]
    # What the load generators counted themselves: a run that ended early must not pass for a whole one.
    counts = [re.search(r"^([\d,]+) requests in |^in all +([\d,]+) requests", text, re.MULTILINE) for text in texts]
    made = [int((count[1] or count[2]).replace(",", "")) if count else 0 for count in counts]
    expected = stage.options.calls * ("postgres" in stage.stores or "redis" in stage.stores)
    expected += stage.options.message_calls * len({"nats", "postgres"} & set(stage.stores))
    if sum(made) < expected * 8 // 10 or not all(made):
        joined = "\n".join(text[-800:] for text in texts)
        stage.problems.append(f"{made} calls were made, and {expected} asked for:\n{joined}")
    shown = ", ".join(f"{name} {count}" for name, count in highest.items())
    print(f"    {sum(made)} calls, no wrong answer; connections at the most: {shown}", flush=True)


def watch_connections(stage, end, highest):
    """Looks at the servers' own lists until told to end."""
    try:
        while not end.is_set():
            for name, store in stage.stores.items():
                highest[name] = max(highest[name], store.connections())
            end.wait(0.05)
    except (OSError, Failure, ValueError, subprocess.TimeoutExpired) as failure:
        stage.problems.append(f"the connections cannot be counted: {failure}")


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0
