"""An ASGI application whose answers last: websockets, events, a body in parts."""

from __future__ import annotations

import asyncio
import os

import jobs

_TEXT = [(b"content-type", b"text/plain")]
_EVENTS = [(b"content-type", b"text/event-stream")]


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["type"] == "http":
        answer = {"/events": _events, "/parts": _parts}.get(scope["path"], _pid)
        await answer(scope["query_string"].decode(), send)


async def _echo(receive, send):
    """Send back each text, with the process that has got it."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = f"{os.getpid()} {message['text']}"
        await send({"type": "websocket.send", "text": text})


async def _events(query, send):
    """Tell the process for ever, as server-sent events."""
    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    while True:
        event = f"data: {os.getpid()}\n\n".encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(0.05)


async def _parts(query, send):
    """Send the second half of an answer when a gate has opened."""
    await send({"type": "http.response.start", "status": 200, "headers": _TEXT})
    first = f"{os.getpid()} first "
    await send(
        {"type": "http.response.body", "body": first.encode(), "more_body": True}
    )
    gates = query.split(",")
    await asyncio.get_running_loop().run_in_executor(None, jobs.meet, *gates)
    await send({"type": "http.response.body", "body": b"last"})


async def _pid(query, send):
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
