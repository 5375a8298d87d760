"""``offloop serve APP`` in a process of its own, as people run it, for tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import coordinators

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: an application for tests; see there
APP = "served:app"


def command(*arguments: str) -> list[str]:
    """Return what runs a command of ``offloop``."""
    return [sys.executable, "-m", "offloop", *arguments]


class Serving:
    """A running ``offloop serve``.

    Args:
        arguments: of the command.
        prefix: command that runs this one.
        files: descriptors that it gets.
        environment: more variables of the process.
    """

    def __init__(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        files: Sequence[int] = (),
        **environment: str,
    ) -> None:
        where: list[str] = []
        if "--app-dir" not in arguments:
            where = ["--app-dir", str(coordinators.TESTS)]
        self.process = subprocess.Popen(
            [*prefix, *command("serve", *arguments, *where)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=coordinators.environment(**environment),
            pass_fds=files,
            text=True,
        )
        self.pid = self.process.pid
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._lines.append("(end)")
            self._changed.notify_all()

    @property
    def said(self) -> str:
        """All that it has said."""
        return "".join(self._lines)

    @property
    def heard(self) -> int:
        """How many lines it has said so far."""
        return len(self._lines)

    def until_said(
        self, pattern: str, *, since: int = 0, times: int = 1
    ) -> re.Match[str]:
        """Wait until a line matches, or so many do; returns the last match.

        Args:
            pattern: to look for in each line.
            since: lines that it had said before (`heard`), which do not count.
            times: how many lines must match.
        """
        seen = since
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if found := re.search(pattern, line):
                        times -= 1
                        if not times:
                            return found
                    if line == "(end)":
                        raise AssertionError(f"no {pattern!r} in:\n{self.said}")
                seen = len(self._lines)
                assert self._changed.wait(60), self.said

    @property
    def port(self) -> int:
        """The port at which it serves."""
        return int(self.until_said(r"is served at https?://\S+:(\d+)")[1])

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is not made yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str) -> str:
        """Return the text of an answer, over a connection of its own."""
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, (answer.status, text)
            return text

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        code = self.process.wait(60)
        self._reader.join(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.send_signal(number)
        return self.wait()


@contextlib.contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Serving]:
    """Serve the tests' application at a free port, and end that at last."""
    where = () if "--bind" in arguments else ("--bind", "127.0.0.1:0")
    one = Serving(APP, *where, *arguments, **environment)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.send_signal(signal.SIGTERM)
        one.wait()


def family(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in map(int, file.read().split()):
                    found += [child, *family(child)]
    return found
