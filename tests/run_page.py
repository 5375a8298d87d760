"""Runs the ```python blocks of pages, in order, as one program.

    python tests/run_page.py docs/guide.md docs/tuning.md

A block may use `await` at its top level, as in ``python -m asyncio``; all such blocks
share one event loop, and pages that share a program share names and a default pool.
Lines keep their numbers, so that tracebacks point into the page.
"""

from __future__ import annotations

import ast
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def blocks(page: str) -> Iterator[str]:
    """Yield each block, with as many empty lines before it as it has lines before."""
    lines = page.splitlines()
    start = None
    for number, line in enumerate(lines):
        if start is None and line.rstrip() == "```python":
            start = number + 1
        elif start is not None and line.rstrip() == "```":
            yield "\n" * start + "\n".join(lines[start:number])
            start = None
    if start is not None:
        raise SyntaxError(f"the block that begins in line {start} does not end")


def run(paths: list[Path]) -> None:
    """Run pages in the namespace of `__main__`, as a script would."""
    namespace = vars(sys.modules["__main__"])
    with asyncio.Runner() as runner:
        for path in paths:
            for block in blocks(path.read_text()):
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                code = compile(block, path, "exec", flags=flags, dont_inherit=True)
                waiting = eval(code, namespace)
                if waiting is not None:
                    runner.run(waiting)


if __name__ == "__main__":
    run([Path(path) for path in sys.argv[1:]])
