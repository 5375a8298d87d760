// An image server on Node: sharp (libvips) behind node:http, as their documentation says.
//
//     node benchmarks/node/sharp_server.mjs [--port 0]
//
// POST /encode?f=webp&w=800&q=80   the image in the body, shrunk and encoded
// GET  /healthz                    ok
//
// The paths and parameters are those of `offloop demo` and benchmarks/image_server.py, so
// that one client can drive them all. sharp runs each image in a thread of libuv's pool;
// as many images at once as there are cores, one thread each, is its best throughput.

import http from 'node:http'
import os from 'node:os'
import { parseArgs } from 'node:util'

const cores = os.availableParallelism()
process.env.UV_THREADPOOL_SIZE ??= String(cores) // read at the first use of the pool
const { default: sharp } = await import('sharp')
sharp.concurrency(1) // threads within one image
sharp.cache(false) // each image comes once

const { values } = parseArgs({ options: { port: { type: 'string', default: '0' } } })

async function encode(query, body) {
  let image = sharp(body).rotate() // upright, as EXIF says
  if (query.has('w')) {
    image = image.resize({ width: Number(query.get('w')), withoutEnlargement: true })
  }
  const options = query.has('q') ? { quality: Number(query.get('q')) } : {}
  return image.toFormat(query.get('f') ?? 'webp', options).toBuffer()
}

async function read(request) {
  const parts = []
  for await (const part of request) parts.push(part)
  return Buffer.concat(parts)
}

function answer(response, status, body, type) {
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': body.length })
  response.end(body)
}

const server = http.createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost')
  try {
    if (pathname === '/healthz') {
      answer(response, 200, Buffer.from('ok'), 'text/plain')
    } else if (pathname === '/encode' && request.method === 'POST') {
      const image = await encode(searchParams, await read(request))
      answer(response, 200, image, `image/${searchParams.get('f') ?? 'webp'}`)
    } else {
      answer(response, 404, Buffer.from('not found'), 'text/plain')
    }
  } catch (error) {
    answer(response, 422, Buffer.from(String(error.message)), 'text/plain')
  }
})

server.listen(Number(values.port), '127.0.0.1', () => {
  // The sentence that uvicorn says, and on the same stream.
  console.error(`running on http://127.0.0.1:${server.address().port}`)
})
process.on('SIGTERM', () => process.exit(0))
