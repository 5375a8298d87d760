"""What one may ask of a running primary: a method for each command.

A command's name and details come from outside; its answer is plain values.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop.cluster.loads import Field
from offloop.cluster.reload import reload
from offloop.cluster.upgrade import upgrade
from offloop.errors import StartError, UsageError

if TYPE_CHECKING:
    from offloop.cluster.offspring import Offspring
    from offloop.cluster.primary import Primary

# Seconds that a server has to say what it does.
_PATIENCE = 0.5

_COMMANDS = (
    *("status", "reload", "upgrade", "scale", "stop", "drain", "resume", "dump"),
    *("signal", "logs"),
)

# Servers that one may ask for; each needs a seat, and during a reload two.
_MOST = 128


class Operations:
    """Does what people want of a primary.

    Args:
        primary: it.
    """

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._reloading = asyncio.Lock()

    async def obey(self, command: str, details: dict[str, Any]) -> dict[str, Any]:
        """Do what a command says, and return what is to be told.

        Raises:
            UsageError: there is no such command.
            StartError: it could not be done.
            TypeError, ValueError: its details are wrong.
        """
        if command not in _COMMANDS:
            known = ", ".join(_COMMANDS)
            raise UsageError(f"{command!r} is no command; there are: {known}")
        answer: dict[str, Any] = await getattr(self, command)(**details)
        return answer

    async def status(self) -> dict[str, Any]:
        """Tell how everybody is."""
        primary = self._primary
        coordinators = primary.coordinators.children.values()
        servers = sorted(primary.servers.children.values(), key=lambda one: one.slot)
        ends = [*primary.coordinators.ends, *primary.servers.ends]
        return {
            "app": primary.settings.app,
            "pid": os.getpid(),
            "state": primary.state,
            "urls": primary.urls,
            "seconds": time.monotonic() - primary.began,
            "wanted": primary.wanted,
            "servers": [self._tell_server(one) for one in servers],
            "coordinators": [self._tell(one) for one in coordinators],
            "failure": primary.servers.failure or primary.coordinators.failure,
            "ends": sorted(ends, key=lambda end: float(end["at"])),
        }

    def _tell(self, child: Offspring) -> dict[str, Any]:
        return {
            "slot": child.slot,
            "pid": child.pid,
            "state": self._state_of(child),
            "seconds": time.monotonic() - child.made_at,
        }

    def _state_of(self, child: Offspring) -> str:
        if child.number < 0:
            return "trial"
        if child.reason is not None or child.ending:
            return "leaving"
        return "ready" if child.ready else "starting"

    def _tell_server(self, child: Offspring) -> dict[str, Any]:
        read = partial(self._primary.loads.read, child.seat)
        return {
            **self._tell(child),
            "requests": read(Field.ANSWERED),
            "in_hand": read(Field.WORK),
            "connections": read(Field.CONNECTIONS),
            "memory": read(Field.MEMORY),
            "shed": read(Field.SHED),
        }

    async def reload(self, probe: str | None = None) -> dict[str, Any]:
        """Replace servers and workers by such with new code, if that is any good."""
        self._be_alone()
        async with self._reloading:
            began = time.monotonic()
            chosen = self._primary.settings.probe if probe is None else probe
            self._primary.notifier.tell_reloading()
            try:
                await reload(self._primary, chosen)
            finally:
                self._primary.notifier.tell("READY=1")
            return {"seconds": time.monotonic() - began}

    def _be_alone(self) -> None:
        if self._reloading.locked():
            raise StartError("a reload or an upgrade is under way: wait for its end")

    async def upgrade(self) -> dict[str, Any]:
        """Leave everything to a new primary, if that can do it."""
        self._be_alone()
        async with self._reloading:
            began = time.monotonic()
            self._primary.notifier.tell_reloading()
            try:
                pid = await upgrade(self._primary)
            except BaseException:
                self._primary.notifier.tell("READY=1")
                raise
            return {"pid": pid, "seconds": time.monotonic() - began}

    async def upgrade_and_say(self) -> None:
        """Leave everything to a new primary, and tell people if that did not work."""
        try:
            await self.upgrade()
        except StartError as error:
            self._primary.say(str(error))

    async def reload_and_say(self) -> None:
        """Reload, and tell people how it went."""
        try:
            answer = await self.reload()
        except StartError as error:
            self._primary.say(str(error))
        else:
            self._primary.say(f"reloaded within {answer['seconds']:.1f} s")

    async def scale(self, servers: int) -> dict[str, Any]:
        """Have so many servers; those that are too many end their requests first."""
        primary = self._primary
        if isinstance(servers, bool) or not 1 <= int(servers) <= _MOST:
            raise ValueError(f"there can be 1 to {_MOST} servers, not {servers!r}")
        failed = primary.servers.start_failures
        primary.scale(int(servers))
        await primary.until(
            lambda: (
                len(primary.servers.working) >= primary.wanted
                or primary.servers.start_failures > failed
            )
        )
        if primary.servers.start_failures > failed:
            why = primary.servers.ends[-1]["output"]
            raise StartError(f"a server could not start:\n{why}")
        return {"servers": len(primary.servers.working)}

    async def stop(self) -> dict[str, Any]:
        """End when open requests have."""
        # Not before this was answered.
        asyncio.get_running_loop().call_soon(self._primary.stop)
        return {}

    async def drain(self) -> dict[str, Any]:
        """Tell whoever asks for readiness that no more requests should come."""
        return self._set_unready("drained")

    async def resume(self) -> dict[str, Any]:
        """Take back `drain`."""
        return self._set_unready("")

    def _set_unready(self, why: str) -> dict[str, Any]:
        if not self._primary.settings.ready_path:
            raise UsageError(
                "nobody would notice: give `offloop serve` a --ready-path, and let the "
                "load balancer ask it"
            )
        self._primary.set_unready(why)
        return {"state": self._primary.state}

    async def dump(self) -> dict[str, Any]:
        """Tell what each server is doing, whatever it is in the middle of."""
        loop = asyncio.get_running_loop()
        asked = []
        for child in self._primary.servers.working:
            if child.hearing is not None:
                answer = loop.create_future()
                child.hearing.ask(partial(_set, answer), _PATIENCE)
                asked.append((child, answer))
        silent = "it does not say: somebody has stopped it, or it ended\n"
        servers = [
            {**self._tell(child), "traceback": await answer or silent}
            for child, answer in asked
        ]
        return {"servers": servers, "pool": bool(self._primary.door)}

    async def logs(
        self,
        lines: int = 100,
        role: str | None = None,
        slot: int | None = None,
        after: int | None = None,
    ) -> dict[str, Any]:
        """Tell the latest lines that anybody has written, or wait for those to come.

        Args:
            lines: so many at most.
            role, slot: of those who have written them; None: of any.
            after: wait until there are others than the first so many ever; None: do
                not wait.
        """
        tail = self._primary.printer.tail
        if after is not None:
            await tail.until_more_than(int(after))
        found = tail.last(int(lines), role, slot, after or 0)
        return {"lines": [line._asdict() for line in found], "count": tail.count}

    async def signal(self, number: int, slot: int | None = None) -> dict[str, Any]:
        """Send a signal to a server, or to all."""
        number = signal.Signals(number)
        chosen = [
            child
            for child in self._primary.servers.working
            if slot is None or child.slot == slot
        ]
        if not chosen:
            raise ValueError(f"there is no server {slot}")
        for child in chosen:
            child.send_signal(number)
        return {"pids": [child.pid for child in chosen]}


def _set(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():
        answer.set_result(text)
