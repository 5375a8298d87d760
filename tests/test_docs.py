"""The code on every page runs, and every link within the repository leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import run_page

ROOT = Path(__file__).parent.parent


def name(page):
    return str(page.relative_to(ROOT))


PAGES = sorted(
    page
    for glob in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for page in ROOT.glob(glob)
)
ALL_TESTS = {
    found
    for path in (ROOT / "tests").rglob("test_*.py")
    for found in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.M)
}
# Followed step by step by test_tutorial, and run by pytest in test_pytest_plugin.
ELSEWHERE = ("docs/tutorial.md", "docs/testing.md")
WITH_CODE = [
    page
    for page in PAGES
    if name(page) not in ELSEWHERE and list(run_page.blocks(page.read_text()))
]
# Pages that need nothing of their own share a program: it costs as much as one.
TOGETHER = [
    page
    for page in WITH_CODE
    if page.parent.name in ("how-to", "migrate") or page.stem in ("tuning", "index")
]
PROGRAMS = [TOGETHER, *([page] for page in WITH_CODE if page not in TOGETHER)]


@pytest.mark.slow
@pytest.mark.parametrize("pages", PROGRAMS, ids=lambda pages: name(pages[-1]))
def test_the_code_of_the_page_runs(pages, monkeypatch):
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)
    command = [sys.executable, "-W", "error", run_page.__file__, *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_the_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tests_that_the_page_names_exist(page):
    assert set(re.findall(r"`(test_\w+)`", page.read_text())) <= ALL_TESTS


def test_each_fault_has_its_tests():
    """The first table of the page about them."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    table = page.partition("\n## What each fault leads to\n")[2].partition("\n\nWhat")[
        0
    ]
    heads, _, *rows = re.findall(r"^\|.*\|$", table, re.MULTILINE)
    assert heads == "| Fault | Outcome | Test |"
    assert len(rows) > 30
    untested = [row for row in rows if not re.search(r"\| (`test_\w+`,? ?)+ ?\|$", row)]
    assert untested == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_blocks_keep_their_line_numbers():
    page = "Text\n```python\na = 1\n```\n```sh\nls\n```\n```python\nb = 2\n```\n"
    assert list(run_page.blocks(page)) == ["\n\na = 1", "\n" * 8 + "b = 2"]


def test_an_open_block_is_an_error():
    with pytest.raises(SyntaxError, match="line 1 does not end"):
        list(run_page.blocks("```python\na = 1\n"))


def test_a_page_may_await_and_share_its_names_and_its_loop(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n"
        "import asyncio\n"
        "done = asyncio.Event()\n"
        "```\n"
        "```python\n"
        "waiter = asyncio.ensure_future(done.wait())\n"
        "await asyncio.sleep(0)\n"
        "```\n"
        "```python\n"
        "done.set()\n"
        "print(await waiter)\n"
        "```\n"
    )
    command = [sys.executable, run_page.__file__, str(page)]
    assert subprocess.check_output(command, text=True) == "True\n"
