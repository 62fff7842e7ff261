"""A `prism serve` under test: started on a loopback port of its own, awaited until ready, and ended for certain."""

import contextlib
import http.client
import itertools
import os
import shlex
import signal
import socket
import subprocess
import time

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 20
COMMAND_SECONDS_MAX = 30


class Failure(Exception):
    """The server did not do what every server must."""


class Server:
    """One server process. As a context manager it is stopped in order at the end, and must end with status 0."""

    def __init__(self, binary, folder, *options, data=None, address=None, tls=None):
        self.binary, self.folder = binary.resolve(), folder
        self.address = address or f"127.0.0.1:{free_port()}"
        self.log = folder / "log"
        # The context of `ssl` for asking a server that speaks TLS.
        self.tls = tls
        data = data or folder / "data"
        self.command = [str(self.binary), "serve", "--data-dir", str(data), "--listen", self.address, *options]
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def command_line(self):
        return shlex.join(self.command)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, _error, _trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()

    def start(self):
        """Starts the process and waits until it says that it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.fail(f"ended with status {self.process.returncode} before it was ready")
            if self.is_ready():
                return
            time.sleep(0.02)
        self.kill()
        self.fail(f"was not ready within {START_SECONDS_MAX} s")

    def is_ready(self):
        if self.tls:
            connection = http.client.HTTPSConnection(self.address, timeout=2, context=self.tls)
        else:
            connection = http.client.HTTPConnection(self.address, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self):
        """Asks the process to drain, and waits until it has ended by itself."""
        if self.process.poll() is not None:
            self.fail(f"ended by itself with status {self.process.returncode} while the tests ran")
        self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self):
        try:
            status = self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.fail(f"did not end within {STOP_SECONDS_MAX} s of SIGTERM")
        if status != 0:
            self.fail(f"ended with status {status} after SIGTERM")
        if "panicked at" in self.output():
            self.fail("panicked")

    def kill(self):
        """Ends the process that was started here, if it still runs, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    def output(self):
        return self.log.read_text(errors="replace")

    def tail(self, lines=30):
        return "\n".join(self.output().splitlines()[-lines:])

    def fail(self, what):
        raise Failure(f"the server {what}; the end of its output:\n{self.tail()}")


# Ports below those that the kernel gives to whoever asks for any, connections included.
FIRST_PORT, PORTS = 10_000, 20_000
_next_port = itertools.count(os.getpid())
_names = []


def free_port():
    """A port that nobody listens on, and that no other test takes as long as this process lives: a name goes with it."""
    for _ in range(PORTS):
        port = FIRST_PORT + next(_next_port) % PORTS
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0prism-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _names.append(name)
        return port
    raise Failure("no port is free")
