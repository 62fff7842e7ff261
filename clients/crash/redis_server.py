"""A real Redis for the scenarios."""

import shutil
import socket

from daemon import Daemon
from server import Failure

# Every acknowledged write is on disk: what strong and eventual namespaces need.
SETTINGS = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]


class Redis(Daemon):
    name = "Redis"

    def __init__(self, folder):
        super().__init__(folder)
        self.program = shutil.which("redis-server")
        if not self.program:
            raise Failure("redis-server is not installed: `stack/setup test` installs it")

    def command(self):
        return [self.program, "--port", str(self.port), "--dir", str(self.folder), *SETTINGS]

    def is_up(self):
        return self.ask("PING") == "PONG"

    def entries(self):
        """What a gateway's configuration says of it."""
        return f'kind: redis, url: "redis://127.0.0.1:{self.reached_at}"'

    def connections(self):
        """Connections of gateways, by the server's own list: all but the one that asks."""
        return sum(1 for line in self.ask("CLIENT", "LIST").splitlines() if line.startswith("id=")) - 1

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
