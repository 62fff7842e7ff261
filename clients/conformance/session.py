"""README's session: its commands, played in a shell, and what they print compared word for word."""

import re
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS = "127.0.0.1:8980"
COMMAND_SECONDS_MAX = 30
MARK = "<<end of output>>"
LSN = re.compile(r'"lsn":"([0-9]+)"')
# Written differently each time: how long an item still has to live, and the version of an item, which has its time in it.
EACH_TIME = re.compile(r'"(ttl|version)":"[^"]+"')


def commands(text=None):
    """(command, output) for each command of README's part "Try it", in order."""
    text = text or (ROOT / "README.md").read_text()
    part = text.split("\n## Try it\n")[1].split("\n## ")[0]
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
        open_command = False
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append([line[2:], ""])
            elif open_command:
                found[-1][0] += "\n" + line
            else:
                found[-1][1] += line + "\n"
            open_command = line.endswith("\\") and (line.startswith("$ ") or open_command)
    assert len(found) > 8, "README has its session in blocks of ```console"
    return [tuple(pair) for pair in found]


class Player:
    """Plays the session in `folder` against a gateway at `address`, which `start` starts: it returns the process."""

    def __init__(self, folder, address, start, environment):
        self.folder, self.address, self.start = folder, address, start
        self.gateway = None
        self.greeting = None
        self.shell = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=folder, env={**environment, "PRISM_SERVER": address, "NO_COLOR": "1"},
        )
        # Where its output is no terminal, curl reports its progress; and a command that hangs must end.
        self.run('curl() { command curl -sS --max-time 20 "$@"; }')

    def close(self):
        # The gateway first: where the shell does not end, nothing may be left of it.
        if self.gateway and self.gateway.poll() is None:
            self.gateway.kill()
            self.gateway.wait()
        if self.gateway:
            self.gateway.stdout.close()
        self.shell.stdin.close()
        try:
            self.shell.wait(timeout=COMMAND_SECONDS_MAX)
        finally:
            self.shell.kill()
            self.shell.wait()
            self.shell.stdout.close()

    def run(self, command):
        """What one command prints, on standard output and standard error."""
        self.shell.stdin.write(f"{command}\nprintf '\\n%s\\n' '{MARK}'\n")
        self.shell.stdin.flush()
        output = ""
        watchdog = threading.Timer(COMMAND_SECONDS_MAX, self.shell.kill)
        watchdog.start()
        try:
            for line in self.shell.stdout:
                if line == MARK + "\n":
                    return output.removesuffix("\n")
                output += line
        finally:
            watchdog.cancel()
        raise AssertionError(f"the shell ended in `{command}`: {output}")

    def greet(self, command, expected):
        """Starts the gateway and reads as much of its greeting as README shows."""
        self.gateway = self.start(command)
        printed = ""
        for _ in expected.splitlines():
            printed += self.gateway.stdout.readline()
        return printed

    def play(self, on_command=lambda command: None):
        for command, expected in commands():
            if command.startswith("make run"):
                printed = self.greet(command, expected)
            else:
                printed = self.run(command.replace(ADDRESS, self.address))
            if command.startswith("kill "):
                self.gateway.wait(timeout=COMMAND_SECONDS_MAX)
                self.gateway.stdout.close()
            compare(command, expected.replace(ADDRESS, self.address), printed)
            on_command(command)


def compare(command, expected, printed):
    """A slow session may find more records of the log's own before its record: a higher number is right as well."""
    lsn = [[int(number) for number in LSN.findall(text)] for text in (expected, printed)]
    if len(lsn[0]) == len(lsn[1]) and all(there >= page for page, there in zip(*lsn, strict=True)):
        expected, printed = LSN.sub("", expected), LSN.sub("", printed)
    plain = lambda text: EACH_TIME.sub(r'"\1":"…"', text).strip("\n")  # noqa: E731
    assert plain(printed) == plain(expected), (
        f"README says that `{command}` prints\n{expected}\nbut it printed\n{printed}"
    )


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self.started = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.started
