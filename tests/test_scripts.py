"""Functions of `__main__`: scripts without a guard, `python -c`, and the prompt."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import asyncio, dataclasses
from offloop import Pool, offload

print("imported")
FACTOR = 3

@dataclasses.dataclass
class Point:
    x: int

class Trouble(Exception):
    pass

def helper(value):
    return value * FACTOR

def shift(point, by):
    assert isinstance(point, Point)
    return Point(helper(point.x) + by)

@offload
def doubled(value):
    return 2 * value

def fail():
    raise Trouble("in the worker")

async def main():
    global FACTOR
    async with Pool(2) as pool:
        point = await pool.run(shift, Point(1), 1)
        print(point, isinstance(point, Point))
        FACTOR = 5
        print(await pool.run(shift, Point(1), 1))
        print(await pool.run(lambda: FACTOR + 1))
        try:
            await pool.run(fail)
        except Trouble as error:
            print("caught", error)
    print(await doubled(21))

asyncio.run(main())
"""

EXPECTED = """imported
Point(x=4) True
Point(x=6)
6
caught in the worker
42
"""


def run(*arguments, **more):
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def test_a_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run(str(script))
    assert done.stderr == ""
    assert done.stdout == EXPECTED


def test_a_traceback_shows_the_line_of_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from offloop import Pool\n"
        "def fail(value):\n"
        "    inner = lambda: 1 / value  # noqa\n"
        "    return inner()\n"
        "async def main():\n"
        "    async with Pool(1) as pool:\n"
        "        await pool.run(fail, 0)\n"
        "asyncio.run(main())\n"
    )
    remote, _, here = run(str(script)).stderr.partition("direct cause")
    assert f'File "{script}", line 5, in fail\n    return inner()' in remote
    assert f'File "{script}", line 4, in <lambda>\n    inner = lambda' in remote
    assert "ZeroDivisionError" in here


def test_python_c():
    done = run("-c", SCRIPT)
    assert done.stderr == ""
    assert done.stdout == EXPECTED


def test_a_script_from_standard_input():
    done = run("-", input=SCRIPT)
    assert done.stderr == ""
    assert done.stdout == EXPECTED


def test_the_asyncio_prompt():
    lines = [
        "from offloop import Pool",
        "def triple(value): return 3 * value",
        "",
        "pool = await Pool(1).start()",
        "await pool.run(triple, 4)",
        "await pool.run(lambda: triple(5))",
        "await pool.close()",
    ]
    done = run("-m", "asyncio", input="\n".join(lines) + "\n")
    assert "12" in done.stdout
    assert "15" in done.stdout
    assert "Error" not in done.stderr


def test_a_notebook_cell(tmp_path):
    """IPython compiles cells under names of its own; their module is `__main__`."""
    cell = tmp_path / "cell.ipy"
    cell.write_text(
        "from offloop import Pool\n"
        "def triple(value): return 3 * value\n"
        "async with Pool(1) as pool:\n"
        "    print(await pool.run(triple, 4), await pool.run(lambda: triple(5)))\n"
    )
    done = run("-m", "IPython", "--no-banner", "--colors=NoColor", str(cell))
    assert "12 15" in done.stdout


def test_a_worker_has_an_empty_main_module():
    code = (
        "import asyncio\n"
        "from offloop import Pool\n"
        "def names():\n"
        "    import __main__, sys\n"
        "    return sorted(n for n in vars(__main__) if n[0] != '_'), sys.argv\n"
        "async def main():\n"
        "    async with Pool(1) as pool:\n"
        "        print(await pool.run(names))\n"
        "asyncio.run(main())\n"
    )
    done = run("-c", code)
    assert done.stdout.strip() in ("([], [''])", "(['names'], [''])"), done
