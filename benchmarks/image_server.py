"""The same small image server, with each way to run its work.

    python benchmarks/image_server.py offloop

POST /encode?w=800&q=80   the image in the body, shrunk and encoded as WebP
GET  /healthz             ok

The names of the ways are those of the peers; nothing but `call` differs. Its sibling on
Node is node/sharp_server.mjs.
"""

from __future__ import annotations

import contextlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import peers
from harness.figures import CORES
from image_job import MEDIA, encode


def application(name: str) -> Starlette:
    peer = peers.load(name)(CORES)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        async with peer:
            yield

    async def answer_encode(request):
        width, quality = (int(request.query_params[key]) for key in "wq")
        image = await peer.call(encode, await request.body(), width, quality)
        return Response(image, media_type=MEDIA)

    async def answer_health(_):
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/encode", answer_encode, methods=["POST"]),
            Route("/healthz", answer_health),
        ],
        lifespan=lifespan,
    )


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=0, access_log=False)
