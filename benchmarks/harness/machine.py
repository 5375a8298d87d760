"""On what machine, with which versions, and how busy it was."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import peers
from harness import node
from harness.figures import CORES


def describe() -> dict:
    """Return what a reader must know about figures."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": CORES,
        "cpu": _cpu(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": os.getloadavg()[0],
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "versions": _versions(),
    }


def _cpu() -> str:
    text = Path("/proc/cpuinfo")
    if text.exists() and (found := re.search(r"model name\s*: (.+)", text.read_text())):
        return found[1]
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {name: peers.version(name) for name in peers.PEERS}
    for package in ("piscina", "sharp"):
        manifest = node.FOLDER / "node_modules" / package / "package.json"
        if manifest.exists():
            found[package] = json.loads(manifest.read_text())["version"]
    found["node"] = _said("node", "--version")
    return {name: version for name, version in found.items() if version}


def _said(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.strip() or None


def sentence(machine: dict) -> str:
    """Return the same in one line."""
    return (
        f"{machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory'] / 2**30:.0f} GB, {machine['system']}, "
        f"{machine['python']}, {machine['date'][:10]}"
    )
