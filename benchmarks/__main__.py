"""Run every benchmark, one after the other, each in a process of its own.

    python -m benchmarks [--quick]

Exits with 1 if one of them misses what it promises.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SCRIPTS = {
    "scheduler_scaling.py": ["--quick"],
    "against_executor.py": ["--quick"],
    "start_and_recovery.py": ["--quick"],
    "healthz_under_load.py": ["--seconds", "3"],
    "timeouts.py": [],
    "mixed_load.py": [],
    "payloads.py": ["--quick"],
    "loop_lag.py": ["--quick"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less work, more noise")
    quick = parser.parse_args().quick
    missed = []
    for name, fewer in SCRIPTS.items():
        print(f"\n== {name}", flush=True)
        script = Path(__file__).with_name(name)
        command = [sys.executable, str(script), *(fewer if quick else [])]
        if subprocess.run(command, check=False).returncode:
            missed.append(name)
    print(f"\nmissed: {', '.join(missed) or 'none'}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
