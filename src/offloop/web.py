"""For web servers: a pool as long as the application lives, work as long as its client.

    server ──▶ listen ──▶ messages ──▶ the application
                 │ its client has gone, and has no whole answer
                 └──▶ cancel what the application does for it

An ASGI server tells an application that its client has gone, by a message, and cancels
nothing: an endpoint that awaits a job asks for no messages, and the job would run to
its end for nobody. What the middleware cancels is the endpoint, and awaiting does the
rest. This module needs no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from offloop import default_pools
from offloop.options import Seconds, seconds

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Mapping,
        MutableMapping,
    )
    from contextlib import AbstractAsyncContextManager

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    Application: TypeAlias = Callable[
        [MutableMapping[str, Any], Receive, Send], Awaitable[None]
    ]

__all__ = ["CancelOnDisconnect", "lifespan"]


@overload
def lifespan(app: object, /) -> AbstractAsyncContextManager[Mapping[str, Any]]: ...


@overload
def lifespan(
    *, deadline: Seconds = 30.0, **pool_options: Any
) -> Callable[[object], AbstractAsyncContextManager[Mapping[str, Any]]]: ...


def lifespan(
    app: object = None, /, *, deadline: Seconds = 30.0, **pool_options: Any
) -> object:
    """Make the `lifespan` of a Starlette or FastAPI application: a pool for its life.

    The application takes no request before the first worker is there, and does not
    start when none can. Functions of `@offload` use the pool, and endpoints find it as
    ``request.state.pool``. When the application ends, jobs may end too, for a while.

    Args:
        app: the application, which gives itself to ``FastAPI(lifespan=lifespan)``; to
            be left out where options are given.
        deadline: seconds that jobs have to end in when the application ends; what takes
            longer is cancelled.
        **pool_options: as for `Pool`, beside what `configure` has set.

    Returns:
        What the application takes as `lifespan`; for `app`, what it makes of that.

    Raises:
        TypeError, ValueError: for a wrong option.

    Example:
        app = FastAPI(lifespan=offloop.lifespan(max_workers=4))
    """
    limit = seconds("deadline", deadline, least=0.0)
    default_pools.check(pool_options)

    @contextlib.asynccontextmanager
    async def live(app: object) -> AsyncGenerator[Mapping[str, Any]]:
        async with default_pools.opened(pool_options, limit) as pool:
            yield {"pool": pool}

    return live if app is None else live(app)


class CancelOnDisconnect:
    """ASGI middleware: cancels what works on a request whose client has gone.

    The endpoint sees `asyncio.CancelledError` where it awaits, so its jobs are stopped
    as their options have it. What a request has begun and must be finished all the same
    is awaited by `asyncio.shield`, or runs with ``on_cancel="finish"``. A request that
    was answered is left alone, background tasks included, and so are websockets.

    It reads one message of a body ahead of the application, no more: a client that goes
    while its upload waits to be read is noticed when it is read.

    Args:
        app: the application that it wraps.

    Example:
        app.add_middleware(CancelOnDisconnect)          # Starlette, FastAPI
        app = CancelOnDisconnect(app)                   # any other
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(receive, send)
        if any(name.lower() == b"expect" for name, _ in scope["headers"]):
            request.asked.clear()
        served = self._app(scope, request.receive, request.send)
        work = asyncio.ensure_future(served)
        left = asyncio.ensure_future(request.listen())
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            if request.answered:  # what it does afterwards needs no client
                await asyncio.wait([work])
        finally:
            work.cancel()
            left.cancel()
            ended = await asyncio.gather(work, left, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome
        if work.cancelled() and request.gone is None:
            raise asyncio.CancelledError("the application was cancelled from inside")


class _Request:
    """The messages of one request, both ways."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        #: what the server has sent and the application has not taken
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        #: that the client has gone; None before. The last thing that a server says
        self.gone: Message | None = None
        #: the server may be asked. That tells a client which has sent "Expect:
        #: 100-continue" to go on, and so it is the application's to decide
        self.asked = asyncio.Event()
        self.asked.set()
        #: the application has sent the last part of its answer
        self.answered = False

    async def listen(self) -> None:
        """Take messages until the client has gone."""
        await self.asked.wait()
        while (message := await self._receive())["type"] != "http.disconnect":
            await self._messages.put(message)
        self.gone = message
        if self._messages.empty():  # somebody may be waiting for one
            self._messages.put_nowait(message)

    async def receive(self) -> Message:
        self.asked.set()
        if self.gone is not None and self._messages.empty():
            return self.gone
        return await self._messages.get()

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self.answered = not message.get("more_body", False)
        elif kind == "http.response.pathsend":  # the server sends a whole file
            self.answered = True
        await self._send(message)
