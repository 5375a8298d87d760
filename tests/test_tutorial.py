"""The tutorial, followed word by word: files are saved, commands typed, answers read.

What a reader does by hand stands in comments that the page does not show: the file
that a block changes, and which command goes on while the others run. Only the port is
another one, and what is to be installed is there.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/tutorial.md"

# A comment for the next block, or a block with its language and title.
_STEP = re.compile(
    r"<!-- (?P<comment>.*?) -->\n"
    r'|```(?P<language>\w+)(?: title="(?P<title>[\w.]+)")?\n(?P<text>.*?)```\n',
    re.DOTALL,
)


class Reader:
    """Somebody who follows the page in a directory.

    Args:
        place: the directory.
        environment: of all commands.
    """

    def __init__(self, place, environment):
        self.place = place
        self.environment = environment
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        #: what was printed last
        self.said = ""
        #: what runs in the other terminal
        self.serving = None
        self.newest = None

    def follow(self, comment, step):
        text = step["text"].replace("8000", self.port)
        if step["language"] == "text":
            self.expect(text)
        elif step["language"] == "python":
            self.edit(comment, step["title"], text)
        elif comment == "in the background":
            self.begin(text)
        elif "pip install" not in text:
            command = ["bash", "-e", "-c", text]
            self.said = subprocess.check_output(
                command, cwd=self.place, env=self.environment, text=True, timeout=60
            )

    def edit(self, comment, title, text):
        if title is not None:
            self.newest = self.place / title
            self.newest.write_text(text)
            return
        name, old = re.fullmatch(r"in (\S+), in place of: (.*)", comment).groups()
        file = self.place / name
        if not file.exists():  # "save a copy"
            shutil.copy(self.newest, file)
        before = file.read_text()
        assert before.count(old) == 1
        file.write_text(before.replace(old, text.rstrip("\n")))

    def begin(self, text):
        self.serving = subprocess.Popen(
            shlex.split(text),
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = []
        for line in self.serving.stdout:
            said.append(line)
            if "is served at" in line:
                return
        pytest.fail("".join(said))

    def expect(self, text):
        """Compare with the last lines that were printed; three dots are anything."""
        wanted = text.strip().replace("...", "*")
        lines = self.said.strip().splitlines()[-len(wanted.splitlines()) :]
        assert fnmatch.fnmatchcase("\n".join(lines), re.sub(r"\[", "[[]", wanted))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_tutorial_works_word_by_word(tmp_path, own_runtime):
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    environment.pop("OFFLOOP_ENGINE", None)
    programs = str(Path(sys.executable).parent)
    environment["PATH"] = programs + os.pathsep + environment["PATH"]
    reader = Reader(tmp_path, environment)
    comment, steps = "", 0
    try:
        for step in _STEP.finditer(PAGE.read_text()):
            if step["comment"]:
                comment = step["comment"]
                continue
            reader.follow(comment, step)
            comment = ""
            steps += 1
        assert reader.serving.wait(60) == 0  # the last command has stopped it
    finally:
        if reader.serving is not None:
            reader.serving.kill()
            reader.serving.wait(60)
            reader.serving.stdout.close()
    assert steps == 21


def test_the_tutorial_says_what_to_install():
    first = next(step for step in _STEP.finditer(PAGE.read_text()) if step["text"])
    assert 'pip install "offloop[cluster]"' in first["text"]
