"""A real NATS with JetStream for the scenarios. It syncs every message before it acknowledges it, unless told otherwise."""

import json
import shutil
import urllib.request
from pathlib import Path

from daemon import Daemon
from server import Failure, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Nats(Daemon):
    name = "NATS"

    def __init__(self, folder, sync="always"):
        super().__init__(folder)
        self.sync = sync
        stack = ROOT / ".tools" / "stack" / "python" / "bin" / "nats-server"
        self.program = shutil.which("nats-server") or (str(stack) if stack.is_file() else None)
        if not self.program:
            raise Failure("nats-server is not installed: `stack/setup test` installs it")
        self.monitor = free_port()
        self.config = folder / "nats.conf"
        self.config.write_text(
            f"listen: 127.0.0.1:{self.port}\nhttp: 127.0.0.1:{self.monitor}\nmax_payload: 8MB\n"
            f'jetstream {{ store_dir: "{folder}/jetstream", max_mem: 64M, max_file: 2G, sync_interval: {sync} }}\n'
        )

    def command(self):
        return [self.program, "--config", str(self.config)]

    def is_up(self):
        return self.ask("healthz").get("status") == "ok"

    def entries(self):
        """What a gateway's configuration says of it."""
        return f'kind: nats, url: "nats://127.0.0.1:{self.reached_at}", sync_interval: {self.sync}'

    def connections(self):
        """Connections of gateways, by the server's own count."""
        return self.ask("varz")["connections"]

    def ask(self, page):
        with OPENER.open(f"http://127.0.0.1:{self.monitor}/{page}", timeout=10) as answer:
            return json.load(answer)
