"""Installs what the benchmarks need and compare with, into the environment it runs in.

    .venv-bench/bin/python benchmarks/install.py

Peers are installed one by one, because one that does not exist for this machine is no
reason to do without the others: the tables say who is missing. piscina and sharp come
from npm, if there is one, into benchmarks/node.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    group = project["dependency-groups"]["bench"]
    if subprocess.run([*PIP, "--editable", f"{ROOT}[demo]"], check=False).returncode:
        return 1
    if subprocess.run([*PIP, *group], check=False).returncode:
        for requirement in group:
            if subprocess.run([*PIP, requirement], check=False).returncode:
                print(f"goes without {requirement}", file=sys.stderr)
    install_node_packages()
    return 0


def install_node_packages() -> None:
    if shutil.which("npm") is None:
        print("goes without piscina and sharp: there is no npm", file=sys.stderr)
        return
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=ROOT / "benchmarks/node", check=False)
    if done.returncode:
        print("goes without piscina and sharp: npm failed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
