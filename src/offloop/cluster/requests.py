"""Stands before the application of a server: counts, and closes connections in order.

    uvicorn ──▶ Counted ──▶ the application

A request passes through untouched, unless the server has too many in hand. While the
server is about to go, answers to new requests say that their connection ends with them,
so that the client's next request goes to another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop.cluster.loads import Field

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from offloop.cluster.loads import Loads

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Message, Receive, Send], Awaitable[None]]

_CLOSE = (b"connection", b"close")

# What is said to those who come while there is too much to do. Who comes again over a
# connection of its own may find another server.
_TOO_MANY = b"The server has too many requests in hand: try again later.\n"
_LATER = ((b"retry-after", b"1"), _CLOSE)


class Counted:
    """An application whose requests are counted.

    Args:
        app: it.
        loads: of all servers.
        seat: of this one.
        begun: called when a request or a websocket begins.
        ready_path: answered here, if it is not "".
        limit: requests that may be in hand; None: any number.
    """

    def __init__(
        self,
        app: Application,
        loads: Loads,
        seat: int,
        begun: Callable[[], object],
        ready_path: str,
        limit: int | None,
    ) -> None:
        self._app = app
        self._loads = loads
        self._seat = seat
        self._cells = loads.cells
        #: where its figures are among the cells
        self._work = loads.cell(seat, Field.WORK)
        self._answered = loads.cell(seat, Field.ANSWERED)
        self._begun = begun
        self._ready_path = ready_path
        self._limit = limit
        #: answers end their connections
        self.leaving = False
        #: why no more requests should come here; "" while they may
        self.unready = ""
        #: requests in hand; websockets, which may last for ever, are not among them
        self.in_hand = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        self._begun()
        if kind != "http":
            await self._app(scope, receive, send)
        elif self._ready_path and scope["path"] == self._ready_path:
            await self._tell_ready(send)
        elif self._limit is not None and self.in_hand >= self._limit:
            self._loads.add(self._seat, Field.SHED)
            await answer(send, 503, _TOO_MANY, *_LATER)
        else:
            # Each request comes this way: no call more than there must be.
            self.in_hand += 1
            cells, work = self._cells, self._work
            cells[work] += 1
            try:
                await self._app(
                    scope, receive, _closing(send) if self.leaving else send
                )
            finally:
                self.in_hand -= 1
                cells[work] -= 1
                cells[self._answered] += 1

    async def _tell_ready(self, send: Send) -> None:
        why = "about to go" if self.leaving else self.unready
        body = f"{why or 'ready'}\n".encode()
        await answer(send, 503 if why else 200, body)


def _closing(send: Send) -> Send:
    """Return what sends the same answer and says that the connection ends with it."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        await send(message)

    return closing


async def answer(
    send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]
) -> None:
    """Send a whole answer in plain text.

    Args:
        send: of the request.
        status: of the answer.
        body: its text.
        more: headers beside type and length.
    """
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
