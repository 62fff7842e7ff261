"""Runs the local servers: `python -m tooling.test.local-stack up|status|down [NAME...]`, a front of stack/servers."""

import os
import sys
from pathlib import Path

SERVERS = Path(__file__).resolve().parents[2] / "stack" / "servers"

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, str(SERVERS), *sys.argv[1:]])
