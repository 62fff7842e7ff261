"""The front page is true: its session, played on a new directory, prints what stands there, word for word."""

import os
import subprocess

from conftest import BINARY
from server import free_port
from session import ROOT, Player


def test_the_session_of_the_front_page(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    release = tmp_path / "target" / "release"
    release.mkdir(parents=True)
    (release / "prism").symlink_to(BINARY.resolve())
    address = f"127.0.0.1:{free_port()}"

    def start(_command):
        # One shard, as on the two cores that the page was written on; what is played is not the power cut, and
        # temporary folders may lie in memory.
        options = ["--listen", address, "--shards", "1", "--set", "wal.allow_unsafe_filesystem=true"]
        with (tmp_path / "diagnostics").open("ab") as diagnostics:
            return subprocess.Popen(
                [BINARY.resolve(), "serve", *options], cwd=tmp_path, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=diagnostics, text=True,
            )

    # What the runner of these tests says by its own variables would be warned of.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRISM_")}
    player = Player(tmp_path, address, start, environment)
    try:
        player.play()
    finally:
        player.close()
