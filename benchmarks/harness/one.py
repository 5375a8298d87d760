"""Makes one measurement, in a process that was started for it: see `turns`.

python -m harness.one '["cases.round_trip", "loky", {"seconds": 1}, null]'
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys

import peers


def measure(module: str, contender: str, arguments: dict) -> dict:
    """Return what a case or a limit finds."""
    function = importlib.import_module(module).measure
    if module.startswith("limits."):
        return function(**arguments)
    peer = peers.load(contender) if contender in peers.PEERS else contender
    if inspect.iscoroutinefunction(function):
        return asyncio.run(function(peer, **arguments))
    return function(peer, **arguments)


def main() -> None:
    module, contender, arguments, _ = json.loads(sys.argv[1])
    try:
        found = measure(module, contender, arguments)
    except peers.CannotDo as error:
        found = {"cannot": str(error)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
