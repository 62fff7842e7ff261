"""docs/USING.md, played from its first line to its last: files, commands and programs, and what they print."""

import os
import re
import subprocess
import sys
import threading

from conftest import BINARY, PACKAGE, PATIENCE_S, ROOT, start

PAGE = ROOT / "docs" / "USING.md"
ADDRESS = "127.0.0.1:8980"
BLOCK = re.compile(r"^```(yaml|console|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Verbs that the page says are not there yet: when one is, the page must say what it does.
NOT_YET = ("audit",)


def matches(expected, printed):
    """Whether a text is what the page shows, in which `…` stands for anything, also for no line or several."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL)


def commands(block):
    """(command, output) for each command of a block."""
    found = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:].rstrip("\n"), ""])
        else:
            found[-1][1] += line
    return found


def shell(command, environment, folder):
    """What a command prints, on both streams."""
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
        cwd=folder,
    )
    return done.stdout


def play_program(code, expected, environment, folder):
    """Runs a program until it has printed what the page shows: the loop of a subscription has no end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
    )
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    try:
        printed = "".join(process.stdout.readline() for _ in expected.splitlines())
        assert matches(expected, printed), f"{code}\nprinted\n{printed}"
        if ".subscribe():" not in code:
            rest = process.stdout.read()
            assert process.wait() == 0 and rest == "", rest
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_page_is_what_happens(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "prism").symlink_to(BINARY.resolve())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with start(tmp_path, "--shards", "2") as server:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PRISM_")},
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PRISM_SERVER": server.address,
            "PYTHONPATH": str(PACKAGE / "src"),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }
        code, played = None, 0
        for kind, text in BLOCK.findall(PAGE.read_text()):
            if kind == "yaml":
                (tmp_path / re.match(r"# (\S+)\n", text)[1]).write_text(text)
            elif kind == "python":
                code = text
            elif kind == "text":
                play_program(code, text, environment, tmp_path)
                played += 1
            else:
                for command, expected in commands(text):
                    done = shell(command.replace(ADDRESS, server.address), environment, tmp_path)
                    assert matches(expected, done), f"`{command}` printed\n{done}\nnot\n{expected}"
                    played += 1
        assert played > 20
        for verb in NOT_YET:
            done = subprocess.run([BINARY, "namespace", verb, "--help"], capture_output=True, timeout=PATIENCE_S)
            assert done.returncode != 0, f"`prism namespace {verb}` is there: docs/USING.md must say what it does"
