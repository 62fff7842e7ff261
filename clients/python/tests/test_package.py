"""The package as others get it: generated code up to date, README's code, types, and a wheel outside of this tree."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest
from conftest import PACKAGE, PATIENCE_S, ROOT, start

from prism import Client, aio, client, errors

# A block of code, and what it prints.
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def run(*command, **options):
    """What a command prints; a failure shows it."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway with the namespaces of the examples' files."""
    folder = tmp_path_factory.mktemp("gateway")
    with start(folder, "--shards", "1") as server:
        with Client(server.address, timeout=PATIENCE_S) as made:
            for name in ("user-events", "user-sessions", "order-processing"):
                made.admin.create((ROOT / "examples" / f"{name}.yaml").read_text())
        yield server


def test_the_generated_code_is_what_the_protos_say(tmp_path):
    run(sys.executable, PACKAGE / "generate", tmp_path)
    made = {path.relative_to(tmp_path / "prism"): path.read_text() for path in (tmp_path / "prism").rglob("*.py*")}
    assert len(made) > 25
    source = PACKAGE / "src" / "prism"
    stale = [
        str(name) for name, text in made.items() if not (source / name).is_file() or (source / name).read_text() != text
    ]
    there = {path.relative_to(source) for path in source.rglob("*_pb2*.py*") if path.suffix in (".py", ".pyi")}
    assert not stale and there <= set(made), f"run clients/python/generate: {stale or there - set(made)} differ from proto/"


def test_every_reason_of_the_api_page_has_a_type_and_the_other_way_round():
    page = (ROOT / "docs" / "API.md").read_text().split("\n## Errors", 1)[1]
    listed = set()
    for row in re.findall(r"^\| (`[A-Z_]+`[^|]*) \|", page, re.MULTILINE):
        listed |= set(re.findall(r"`([A-Z_]+)`", row))
    assert len(listed) > 50
    assert listed - set(errors.BY_REASON) == set(), "reasons without a type in src/prism/errors.py"
    # One that the page leaves out, and two of gateways that limit rates and show plans.
    assert set(errors.BY_REASON) - listed <= {"NOT_SERVING", "RATE_LIMITED", "PLAN_CHANGED"}, "types without a reason"


def test_both_clients_have_the_same_methods():
    for ours, theirs in ((Client, aio.Client), (client.Admin, aio.Admin), (client.Subscription, aio.Subscription)):
        public = {name for name, _ in inspect.getmembers(ours, inspect.isfunction) if not name.startswith("__")}
        assert public == {name for name, _ in inspect.getmembers(theirs, inspect.isfunction) if not name.startswith("__")}
        for name in public:
            one, other = inspect.signature(getattr(ours, name)), inspect.signature(getattr(theirs, name))
            if name != "work":
                assert list(one.parameters.values()) == list(other.parameters.values()), name
            assert list(one.parameters) == list(other.parameters), name


@pytest.mark.parametrize("tool", [("mypy",), ("ruff", "check", "."), ("ruff", "format", "--check", ".")])
def test_types_and_style(tool):
    run(sys.executable, "-m", *tool, cwd=PACKAGE)


def test_the_first_session_of_the_readme(gateway):
    """Word for word; its loop has no end, so it is read until it has printed what README says, and ended."""
    code, printed = EXAMPLE.search((PACKAGE / "README.md").read_text()).groups()
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE / "src"),
        "PRISM_SERVER": gateway.address,
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    try:
        assert "".join(process.stdout.readline() for _ in printed.splitlines()) == printed
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_other_examples_of_the_readme(gateway, capsys, monkeypatch):
    monkeypatch.setenv("PRISM_SERVER", gateway.address)
    examples = EXAMPLE.findall((PACKAGE / "README.md").read_text())
    assert len(examples) == 6
    for code, printed in examples[1:]:
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
        assert capsys.readouterr().out == printed


def test_an_installed_wheel_works_outside_of_this_tree(gateway, tmp_path):
    """Built, and installed into an environment of its own, with its dependencies from the package index."""
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", ".*_cache", "dist", "generated"))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=source)
    (built,) = (source / "dist").iterdir()
    wheel = built.rename(tmp_path / built.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert "prism/py.typed" in names and "prism/keyvalue/v1/keyvalue_pb2.pyi" in names
    assert any(name.endswith("licenses/LICENSE") for name in names) and not any("tests/" in name for name in names)
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert "\nName: prism-data\n" in metadata and "\nLicense-Expression: Apache-2.0\n" in metadata
    shutil.rmtree(source)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
        "--disable-pip-version-check",
        wheel,
        cwd=tmp_path,
    )
    script = (
        "from prism import Client; from prism import options_pb2; import prism\n"
        "with Client('user-sessions', timeout=60) as c:\n"
        "    c.put('wheel', {'k': 'v'}); print(c.get('wheel'), prism.__file__)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    printed = run(python, "-c", script, cwd=tmp_path, env={**environment, "PRISM_SERVER": gateway.address})
    assert printed.startswith("{b'k': b'v'} ") and str(tmp_path / "fresh") in printed
