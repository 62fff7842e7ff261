"""A server of a scenario, next to PostgreSQL: one process, whose data lies in the scenario's folder, and which ends with this one."""

import contextlib
import signal
import subprocess
import time

from server import Failure, free_port

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20


class Daemon:
    """`name` for people; `command()` starts it; `is_up()` asks whether it answers, and may raise OSError."""

    name = "a server"

    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        # Where gateways reach it; a proxy puts its own port here.
        self.reached_at = self.port
        self.log = folder / "log"
        folder.mkdir(parents=True)

    def start(self):
        """Starts the server on the data that is there, and waits until it answers."""
        # It ends with its parent: with this process.
        command = ["setpriv", "--pdeathsig", "TERM", *self.command()]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.is_up():
                    return
            time.sleep(0.02)
        raise Failure(f"{self.name} does not start: {self.log.read_text(errors='replace')[-500:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
