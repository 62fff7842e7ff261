"""A real PostgreSQL for the scenarios: its data lies in their folder, and it ends with this process, however that ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from server import Failure, free_port

START_SECONDS_MAX = 120


class Postgres:
    name = "PostgreSQL"

    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        # Where gateways reach it; a proxy puts its own port here.
        self.reached_at = self.port
        self.log = folder / "log"
        folder.mkdir(parents=True)
        versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
        if not versions:
            raise Failure("PostgreSQL's programs are not installed: `stack/setup test` installs them")
        self.programs = max(versions, key=lambda path: int(path.parent.name))
        self.prefix = self.as_user()
        made = self.run(
            [*self.prefix, self.programs / "initdb", "-D", folder / "data", "-U", "prism", "-A", "trust", "-E", "UTF8",
             "--locale=C.UTF-8", "--no-sync"],
        )
        if made.returncode != 0:
            raise Failure(f"initdb: {made.stderr[-500:]}")

    def run(self, command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS_MAX)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{late}") from late

    def as_user(self):
        """A prefix under which the server, which refuses to run as root, takes itself for somebody else."""
        if os.geteuid() != 0:
            return []
        prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
        shutil.chown(self.folder, "postgres")
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def url(self, database, port=None):
        return f"postgresql://prism@127.0.0.1:{port or self.port}/{database}"

    def entries(self):
        """What a gateway's configuration says of it."""
        return f'kind: postgres, url: "{self.url("store", self.reached_at)}"'

    def connections(self):
        """Connections of gateways to the store, by the server's own list."""
        statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'prism' AND datname = 'store'"
        return int(self.sql("postgres", statement))

    def start(self):
        """Starts the server on the data that is there, and waits until it answers."""
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB", "max_connections=60"]
            options = [word for setting in settings for word in ("-c", setting)]
            # It ends with its parent: with this process.
            command = [*self.prefix, "setpriv", "--pdeathsig", "INT", self.programs / "postgres", "-D", self.folder / "data", *options]
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            while self.process.poll() is None and time.monotonic() < end:
                if subprocess.run([self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "prism"]).returncode == 0:
                    return
                time.sleep(0.02)
            # What a killed server has left may still hold its memory: then it ends at once.
            time.sleep(0.02)
        raise Failure(f"PostgreSQL does not start: {self.log.read_text(errors='replace')[-500:]}")

    def kill(self):
        """A crash of the machine: the server and all its connections' processes are gone at once."""
        pids = [self.process.pid]
        with contextlib.suppress(OSError):
            pids += [int(pid) for pid in Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def sql(self, database, statement):
        """What psql, a plain client, prints."""
        done = self.run([self.programs / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)])
        if done.returncode != 0:
            raise Failure(f"{statement}: {done.stderr[-500:]}")
        return done.stdout.strip()
