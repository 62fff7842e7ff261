"""A real Redis for the scenarios: its data lies in their folder, and it ends with this process, however that ends."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time

from server import Failure, free_port

START_SECONDS_MAX = 60
# Every acknowledged write is on disk: what strong and eventual namespaces need.
SETTINGS = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]


class Redis:
    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        self.log = folder / "log"
        folder.mkdir(parents=True)
        self.program = shutil.which("redis-server")
        if not self.program:
            raise Failure("redis-server is not installed: `stack/setup test` installs it")

    def entries(self):
        """What a gateway's configuration says of it."""
        return f'kind: redis, url: "redis://127.0.0.1:{self.port}"'

    def connections(self):
        """Connections of gateways, by the server's own list: all but the one that asks."""
        return sum(1 for line in self.ask("CLIENT", "LIST").splitlines() if line.startswith("id=")) - 1

    def start(self):
        """Starts the server on the data that is there, and waits until it answers."""
        # It ends with its parent: with this process.
        command = ["setpriv", "--pdeathsig", "TERM", self.program, "--port", str(self.port), "--dir", str(self.folder), *SETTINGS]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask("PING") == "PONG":
                    return
            time.sleep(0.02)
        raise Failure(f"Redis does not start: {self.log.read_text(errors='replace')[-500:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask(self, *words):
        """What the server answers a plain client with: a line, or a text."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request.encode())
            answer = connection.makefile("rb")
            line = answer.readline().decode().strip()
            if line.startswith("$"):
                return answer.read(int(line[1:])).decode()
            return line[1:]
