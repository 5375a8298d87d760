"""Measurements, with peers in the same run; `python -m benchmarks` runs them all.

Each script also runs by itself: `python benchmarks/payloads.py`. So that it finds its
neighbours as well when it is started by `python -m benchmarks.payloads`, this folder is
a place to import from.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
