"""New code for all servers and workers, once it has proven itself; no request is lost.

    one server of it, beside the others ──▶ ready? ──▶ probe? ──▶ the pool's workers
            │                                 │          │               │
            └─────────────────────────────────┴──────────┴─── no ────────┤
                                                                         ▼
    the old ones go on                  the others, one by one: new before old

The first server of the new version is only tried: it takes no connections but the
primary's, which comes through a pair of sockets. What it shows is what the others would
do. Only then is an old server asked to go, after the one that replaces it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from offloop import messages
from offloop.core.exits import ExitReason
from offloop.errors import StartError

if TYPE_CHECKING:
    from offloop.cluster.offspring import Offspring
    from offloop.cluster.primary import Primary

_STAY = "the old version goes on"

# Seconds that an old server gets to close its gate: one that is blocked takes nobody.
_CLOSING = 1.0

# Characters of an answer that are shown when it is no good.
_SHOWN = 500


async def reload(primary: Primary, probe: str) -> None:
    """Replace all servers, and the workers of their pool.

    Args:
        primary: whose they are.
        probe: path that the new version must answer without an error; "": none.

    Raises:
        StartError: the new version is no good; `str` says why. Nothing has changed
            then, unless it says so.
    """
    began = time.monotonic()
    await try_version(primary, probe)
    await _renew_pool(primary)
    while (old := _oldest(primary, began)) is not None:
        await _replace(primary, old)


async def try_version(primary: Primary, probe: str) -> None:
    """See whether a server of the code as it is now is any good.

    Args:
        primary: whose server it is.
        probe: path that it must answer without an error; "": none.

    Raises:
        StartError: it is not; `str` says why.
    """
    servers = primary.servers
    try:
        canary = servers.try_child()
    except OSError as error:
        raise _refused(f"no process can be started: {error}") from None
    try:
        await _until_ready(primary, canary)
        if probe:
            async with asyncio.timeout(primary.settings.boot_timeout):
                await _probe(canary, probe)
    except TimeoutError:
        seconds = primary.settings.boot_timeout
        raise _refused(f"it took longer than {seconds:g} s", canary) from None
    finally:
        if canary.exit is None:
            servers.end_trial(canary)


async def _until_ready(primary: Primary, canary: Offspring) -> None:
    async with asyncio.timeout(primary.settings.boot_timeout):
        await primary.until(lambda: canary.ready or canary.exit is not None)
    if canary.exit is not None:
        raise _refused(f"its server {canary.exit}", canary)
    if not canary.ready:
        raise StartError("the end has begun")


async def _probe(canary: Offspring, path: str) -> None:
    """Ask the new version something."""
    ours, theirs = socket.socketpair()
    canary.tell((messages.PROBE,), theirs.fileno())
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    try:
        writer.write(request.encode())
        answer = (await reader.read()).decode("utf-8", "replace")
    except ConnectionError as error:
        answer = str(error)
    finally:
        writer.close()
    words = answer.split(maxsplit=2)
    if len(words) < 2 or not words[1].startswith(("2", "3")):
        shown = answer.strip()[:_SHOWN] or "nothing"
        raise _refused(f"{path} was answered by:\n{shown}\n", canary)


async def _renew_pool(primary: Primary) -> None:
    """Let the workers of the shared pool have the new code."""
    if primary.coordinators.working:
        trouble = await primary.renew_pool()
        if trouble:
            raise _refused(trouble)


def _oldest(primary: Primary, began: float) -> Offspring | None:
    """Return a server with the old code that is to be replaced, if there is one."""
    if primary.code is not None:
        raise StartError("the end has begun")
    for child in primary.servers.children.values():
        if child.number > 0 and child.made_at < began and child.reason is None:
            return child
    return None


async def _replace(primary: Primary, old: Offspring) -> None:
    """Replace one server, and wait until the new one serves all who come."""
    servers = primary.servers
    await primary.until(lambda: old.ready or old.exit is not None)
    failed = servers.start_failures
    servers.replace(old, ExitReason.RELOADED)
    await primary.until(
        lambda: (
            old.reason is not None
            or old.exit is not None
            or servers.start_failures > failed
        )
    )
    if old.reason is None and old.exit is None and primary.code is None:
        why = servers.ends[-1]["output"].rstrip()
        raise StartError(
            f"a server of the new version could not start, though one could before; "
            f"server {old.slot} goes on with the old version until one can:\n{why}"
        )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING):
            await primary.until(lambda: old.closed or old.exit is not None)


def _refused(why: str, child: Offspring | None = None) -> StartError:
    output = "" if child is None else child.last_lines.rstrip()
    message = f"the new version was not taken: {why}; {_STAY}"
    if output:
        message += f"\n{output}"
    return StartError(message, output=output)
