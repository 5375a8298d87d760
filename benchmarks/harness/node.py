"""Programs for Node, and whether they can run."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "node"


class Missing(Exception):
    """Node, or what a program for it needs, is not installed."""


def command(program: str) -> list[str]:
    """Return what runs a program in node/.

    Raises:
        Missing: there is no Node here, or no packages for it.
    """
    if (node := shutil.which("node")) is None:
        raise Missing("needs Node, which is not installed")
    if not (FOLDER / "node_modules").is_dir():
        raise Missing("needs `npm install` in benchmarks/node")
    return [node, str(FOLDER / program)]
