"""The process that serves nothing, and sees to it that others do.

                     ┌──▶ coordinator ──▶ compute workers
    signals ──▶ primary ──▶ server ┐
                     ├──▶ server ├── the same listening sockets
                     └──▶ server ┘

It opens the sockets and hands them down, keeps one coordinator and the wanted number of
servers alive by a crew each, and ends them in order: servers first, the pool that they
use last. No request and no job passes through it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from offloop import messages, runtime
from offloop.cluster.binding import bind, neighbour
from offloop.cluster.claims import Claims
from offloop.cluster.control import Control
from offloop.cluster.coordinate import DRAIN_TIME
from offloop.cluster.crew import Crew
from offloop.cluster.loads import SEATS, Field, Loads, make_page
from offloop.cluster.operations import Operations
from offloop.cluster.reload import try_version
from offloop.cluster.watching import times_of_change, watch
from offloop.core.children import SupervisionState
from offloop.core.supervision import Supervision
from offloop.errors import StartError
from offloop.hearing import Hearing
from offloop.wire.status import create_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from offloop.cluster.binding import Bound
    from offloop.cluster.coordinate import PoolSettings
    from offloop.cluster.heritage import Heritage
    from offloop.cluster.logs import Printer
    from offloop.cluster.notify import Notifier
    from offloop.cluster.offspring import Offspring
    from offloop.cluster.settings import ServeSettings
    from offloop.cluster.upgrade import Heir

#: exit codes beside 0
START_FAILED = 3
CRASH_LOOP = 4

# Seconds between two looks how much servers have been used.
_PERIOD = 0.5

# A coordinator that was killed after so many seconds of work was not at fault.
_WORKED = 1.0


class Primary:
    """Keeps one application served.

    Args:
        settings: how.
        pool: what the servers' shared pool is made of; None: they have none.
        home: directory of this user alone, for its sockets.
        bound: what to listen on; stays the caller's.
        printer: of all that is said.
        notifier: tells the service manager.
        heritage: of the primary whose place this one takes; None: there is none.
        folder: where a successor of it begins.

    Raises:
        StartError: a port cannot be had.
    """

    def __init__(
        self,
        settings: ServeSettings,
        pool: PoolSettings | None,
        home: Path,
        bound: Sequence[Bound],
        printer: Printer,
        notifier: Notifier,
        heritage: Heritage | None = None,
        folder: str = ".",
    ) -> None:
        self.settings = settings
        self._pool = pool
        #: what all servers listen on
        self.bound = bound
        #: what single servers listen on, by slot
        self._own: dict[int, Bound] = {}
        self._heritage = heritage
        #: servers that there should be
        self.wanted = settings.workers
        if heritage is not None:
            self.wanted = heritage.wanted or settings.workers
        self._bind_own(self.wanted)
        self.printer = printer
        self.notifier = notifier
        notifier.muted = heritage is not None
        self.folder = folder
        #: servers of another primary do the same as this one's
        self._others = heritage is not None
        #: the process that is about to take this one's place
        self.heir: Heir | None = None
        self._page = make_page()
        self.loads = Loads(self._page)
        #: seats that are taken
        self._seats: set[int] = set()
        #: those who wait for a change
        self._watchers: list[asyncio.Future[None]] = []
        pidfile = settings.pidfile
        self._claims = Claims(home, pool=pool is not None, pidfile=pidfile)
        self._operations = Operations(self)
        self._control = Control(self._operations.obey, home)
        #: why load balancers should send no more requests; "" while they may
        self.unready = "" if heritage is None else heritage.unready
        #: gets what the coordinator says of new code for its workers
        self._renewed: asyncio.Future[str] | None = None
        #: when it began, in monotonic seconds
        self.began = time.monotonic()
        #: every server has been ready once
        self._serving = False
        #: the first coordinator, or no server at all, was able to start
        self._start_failed = False
        #: exit code; None while nothing has ended it
        self.code: int | None = None
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        #: keeps the coordinator; wants none if the servers have no shared pool
        self.coordinators = Crew(
            "coordinator",
            Supervision(boot_timeout=settings.boot_timeout),
            self,
            environment,
            DRAIN_TIME,
            printer,
        )
        if pool is not None:
            environment = {
                **environment,
                "OFFLOOP_ENGINE": "shared",
                runtime.DOOR_VARIABLE: self.door,
            }
        #: keeps the servers
        self.servers = Crew(
            "server",
            Supervision(recycle=settings.recycle(), boot_timeout=settings.boot_timeout),
            self,
            environment,
            settings.graceful_timeout,
            printer,
        )

    async def run(self) -> int:
        """Serve until somebody ends it; returns the exit code.

        Raises:
            StartError: there is another primary in this home.
        """
        self._listen_to_signals()
        if self._heritage is None:
            self._claims.claim()
            self._control.open()
        else:
            self._heritage.listen()
        self._look_at_use()
        watching, folder = None, self.settings.app_dir
        known = times_of_change(folder) if self.settings.watch else {}
        try:
            await self._start()
            if self.code is None and self._heritage is not None:
                await self._take_place(self._heritage)
            if self.code is None:
                self._serving = True
                self._say_ready()
                self.notifier.tell("READY=1")
            if self.settings.watch:
                act = self._operations.reload_and_say
                watching = asyncio.ensure_future(watch(folder, known, act))
            await self.until(lambda: False)
        finally:
            if watching is not None:
                watching.cancel()
            await self._end()
            self.printer.tail.close()
            await self._control.close()
            self._claims.release()
        assert self.code is not None
        return self.code

    async def _start(self) -> None:
        """Start the coordinator, then the servers; returns when they are ready."""
        if self._pool is not None:
            self.coordinators.scale(1)
            await self.until(lambda: bool(self.coordinators.working))
        heritage, probe = self._heritage, self.settings.probe
        if heritage is not None and probe and self.code is None:
            # Those who come now have better places to go to than an untried server.
            try:
                await try_version(self, probe)
            except StartError as error:
                heritage.give_up(str(error))
                self.stop(START_FAILED)
        if self.code is None:
            self.servers.scale(self.wanted)
            await self.until(
                lambda: (
                    len(self.servers.working) >= self.wanted
                    or (heritage is not None and self.servers.start_failures > 0)
                )
            )
        if self.code is None and heritage is not None and self.servers.start_failures:
            self._start_failed = True
            self._look_for_ruin()

    # From one primary to the next one

    async def _take_place(self, heritage: Heritage) -> None:
        """Take over from the primary that has started this one."""
        self._claims.seize()
        self._control.open()
        await heritage.settle(self.notifier)
        heritage.close()
        self._others = False
        for bound in (*self.bound, *self.own):
            bound.ours = True

    def hand_over(self, pid: int) -> None:
        """Let what is under way end, as a new primary has taken over.

        Args:
            pid: of the new one.
        """
        self.say(f"process {pid} has taken over")
        self.notifier.tell(f"MAINPID={pid}")
        self.notifier.muted = True
        self._others = True
        for bound in (*self.bound, *self.own):
            bound.ours = False
        self.stop()

    async def keep_place(self) -> None:
        """Go on, as the new primary is gone: its names are this one's again."""
        if self.code is None and self._control.displaced:
            self._claims.seize()
            self._control.open()

    @property
    def own(self) -> list[Bound]:
        """What single servers listen on, in their order."""
        return [self._own[slot] for slot in sorted(self._own)]

    @property
    def urls(self) -> list[str]:
        """Where it is served."""
        return [bound.url for bound in (*self.bound, *self.own)]

    @property
    def door(self) -> str:
        """Path to the coordinator of the shared pool, "" if there is none."""
        return "" if self._pool is None else str(self._claims.door)

    @property
    def state(self) -> str:
        """How it is, in a word."""
        if self.code is not None:
            return "ending"
        if self.servers.supervision.state is SupervisionState.FAILED:
            return "crash loop"
        if not self._serving:
            return "starting"
        return self.unready or "serving"

    def scale(self, servers: int) -> None:
        """Have so many servers from now on.

        Raises:
            StartError: a port cannot be had.
        """
        self._bind_own(servers)
        self.wanted = servers
        if self.servers.ever_ready:  # else it begins with as many
            self.servers.scale(servers)

    def _bind_own(self, servers: int) -> None:
        """Open a port for each of so many servers, if each is to have its own."""
        address = self.settings.port_each
        scheme = "https" if self.settings.uvicorn.get("ssl_certfile") else "http"
        for slot in range(servers) if address else ():
            if slot not in self._own:
                where = neighbour(address, slot)
                left = None if self._heritage is None else self._heritage.take(where)
                self._own[slot] = left or bind(where, scheme)

    def _close_own(self, slot: int) -> None:
        if slot in self._own:
            self._own.pop(slot).close()

    def set_unready(self, why: str) -> None:
        """Have servers say that no more requests should come; "" that they may."""
        self.unready = why
        for child in self.servers.children.values():
            child.tell((messages.UNREADY, why))

    async def renew_pool(self) -> str:
        """Give the shared pool's workers new code; returns why it is no good, or ""."""
        (coordinator,) = self.coordinators.working
        renewed = self._renewed = asyncio.get_running_loop().create_future()
        coordinator.tell((messages.RENEW,))
        await self.until(lambda: renewed.done() or coordinator.exit is not None)
        self._renewed = None
        # A coordinator that has just died gets a successor with new code anyway.
        return renewed.result() if renewed.done() else ""

    def say(self, text: str) -> None:
        """Tell people something."""
        for line in text.splitlines():
            self.printer.print("primary", None, os.getpid(), line)

    def _say_ready(self) -> None:
        where = ", ".join(self.urls)
        pool = "" if self._pool is None else ", with a shared pool"
        self.say(f"{self.settings.app} is served at {where} by {self.wanted}{pool}")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, or the end has begun."""
        while self.code is None and not condition():
            await self._next_change()

    async def _next_change(self) -> None:
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    # The end

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGQUIT, self.stop_now)
        act, operations = self._control.act, self._operations
        loop.add_signal_handler(signal.SIGHUP, lambda: act(operations.reload_and_say()))
        loop.add_signal_handler(
            signal.SIGUSR2, lambda: act(operations.upgrade_and_say())
        )
        loop.add_signal_handler(signal.SIGUSR1, self.printer.reopen)
        loop.add_signal_handler(signal.SIGTTIN, self._scale_by, 1)
        loop.add_signal_handler(signal.SIGTTOU, self._scale_by, -1)

    def _scale_by(self, change: int) -> None:
        try:
            self.scale(max(self.wanted + change, 1))
        except StartError as error:
            self.say(str(error))
        else:
            self.say(f"{self.wanted} servers are wanted")

    def _interrupted(self) -> None:
        if self.code is None:
            self.stop()
        else:
            self.stop_now()

    def stop(self, code: int = 0) -> None:
        """Let what is under way end, then end."""
        if self.code is None:
            self.code = code
            self.notifier.tell("STOPPING=1")
            seconds = self.settings.graceful_timeout
            self.say(f"ending: open requests get {seconds:g} s")
            for bound in self.bound:
                bound.close()
            for slot in list(self._own):
                self._close_own(slot)
            self.servers.dismiss(seconds, others=self._others)
            self.changed()

    def stop_now(self) -> None:
        """End at once, whatever is under way."""
        self.stop()
        self.coordinators.dismiss(0.0)
        self.servers.kill()
        self.coordinators.kill()

    async def _end(self) -> None:
        """Wait for the end of the servers, then end the coordinator."""
        self.stop()
        while not self.servers.gone or self.heir is not None:
            await self._next_change()
        if not self.coordinators.dismissed:
            self.coordinators.dismiss(DRAIN_TIME)
        while not self.coordinators.gone:
            await self._next_change()
        self.loads.close()
        os.close(self._page)

    # What crews need

    def equip(self, child: Offspring) -> tuple[dict[str, Any], Sequence[int]]:
        """Return settings and files of a child that is about to begin."""
        settings: dict[str, Any] = {"app_dir": self.settings.app_dir}
        if child.role == "coordinator":
            assert self._pool is not None
            return {**settings, "pool": asdict(self._pool), "door": self.door}, []
        child.seat = min(set(range(SEATS)) - self._seats)
        self._seats.add(child.seat)
        self.loads.clear(child.seat)
        self.loads.reach(max(self._seats) + 1)
        settings["app"] = self.settings.app
        settings["seat"] = child.seat
        settings["core"] = self._core_of(child)
        settings["graceful_timeout"] = self.settings.graceful_timeout
        settings["ready_path"] = self.settings.ready_path
        settings["uvicorn"] = dict(self.settings.uvicorn)
        settings["unready"] = self.unready
        settings["limit_concurrency"] = self.settings.limit_concurrency
        child.page = create_file()
        child.hearing = Hearing(child.page, child.send_signal)
        settings["alone"] = bool(self.settings.port_each)
        bound = list(self.bound)
        if child.slot in self._own:
            bound.append(self._own[child.slot])
        listeners = [one.socket.fileno() for one in bound]
        return settings, [self._page, child.page, *listeners]

    def _core_of(self, child: Offspring) -> int | None:
        if not self.settings.pin:
            return None
        cores = sorted(os.sched_getaffinity(0))
        return cores[max(child.slot, 0) % len(cores)]

    def heard(self, child: Offspring, kind: int, details: Sequence[Any]) -> None:
        """Take what a child says that is not for its crew."""
        if kind == messages.RENEWED and self._renewed is not None:
            self._renewed.set_result(details[0])
            self.changed()

    def _look_at_use(self) -> None:
        """Look now and then how much each server has been used; say that it looks."""
        if self.code is None:
            self.servers.look_at_use(self._used)
            if self.notifier.watchdog:
                self.notifier.tell("WATCHDOG=1")
            asyncio.get_running_loop().call_later(_PERIOD, self._look_at_use)

    def _used(self, child: Offspring) -> tuple[int, int]:
        read = self.loads.read
        return read(child.seat, Field.ANSWERED), read(child.seat, Field.MEMORY)

    def has_worked(self, child: Offspring) -> bool:
        """Tell whether a child has ever done what it is for."""
        if child.role == "server":
            return self.loads.read(child.seat, Field.ANSWERED) > 0
        return time.monotonic() - child.ready_at > _WORKED

    def child_ended(self, child: Offspring) -> None:
        """Take leave of a child."""
        if child.seat >= 0:
            self.loads.clear(child.seat)
            self._seats.remove(child.seat)
            if child.slot >= self.wanted:  # there are fewer now
                self._close_own(child.slot)

    def changed(self) -> None:
        """Look at the crews: something has changed."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)
        if self.code is None:
            self._look_for_ruin()

    def _look_for_ruin(self) -> None:
        """End if nothing could be started, or no server is left and none can be had."""
        servers = self.servers
        if self._start_failed:
            if self._heritage is not None:
                ends = [*servers.ends, *self.coordinators.ends]
                self._heritage.give_up(ends[-1]["output"] if ends else servers.failure)
            self.stop(START_FAILED)
            return
        failed = servers.supervision.state is SupervisionState.FAILED
        if failed and not servers.children:
            self.say("no server is left, and none stays alive: giving up")
            self.stop(CRASH_LOOP)

    def gave_up(self, crew: Crew, reason: str) -> None:
        """No child of this crew can be had for now."""
        self.say(f"the {crew.role} cannot be kept alive: {reason}")
        self._start_failed = self._start_failed or not crew.ever_ready
