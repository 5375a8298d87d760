// piscina beside the peers in Python: the cases of benchmarks/cases, in JavaScript.
//
//     node benchmarks/node/piscina.mjs round_trip '{"seconds": 1}'
//
// Prints what the case of that name reports, as JSON.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import os from 'node:os'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'

const CORES = Math.max(2, os.availableParallelism())
const JOBS = new URL('./jobs.mjs', import.meta.url).href
const LOOP = 1.5
const LIMIT = 0.05

const began = performance.now()
const { Piscina } = await import('piscina')
const imported = (performance.now() - began) / 1000

const now = () => performance.now() / 1000
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

function makePool(workers) {
  // Threads that stay, and that wait for the next job without leaving the processor's
  // side (atomics), are its fastest settings and its defaults.
  return new Piscina({
    filename: JOBS,
    minThreads: workers,
    maxThreads: workers,
    maxQueue: Infinity,
  })
}

async function withPool(workers, use) {
  const pool = makePool(workers)
  try {
    return await use(pool, (name, argument, options) => pool.run(argument, { name, ...options }))
  } finally {
    await pool.destroy()
  }
}

function percentile(values, percent) {
  const ordered = Float64Array.from(values).sort()
  return ordered[Math.min(ordered.length - 1, Math.floor((ordered.length * percent) / 100))]
}

async function rate(call, inFlight, seconds) {
  await Promise.all(Array.from({ length: inFlight }, call))
  const start = now()
  const end = start + seconds
  async function caller() {
    let done = 0
    while (now() < end) {
      await call()
      done++
    }
    return done
  }
  const counts = await Promise.all(Array.from({ length: inFlight }, caller))
  return counts.reduce((a, b) => a + b) / (now() - start)
}

// Notes how late a timer of one millisecond is.
class Ticker {
  late = []

  start() {
    const tick = () => {
      this.late.push(Math.max(0, now() - this.due))
      this.due = now() + 0.001
      this.timer = setTimeout(tick, 1)
    }
    this.due = now() + 0.001
    this.timer = setTimeout(tick, 1)
  }

  begin() {
    this.late.length = 0
    this.due = now()
  }

  async stop() {
    await sleep(0.002)
    clearTimeout(this.timer)
    return { p99: percentile(this.late, 99), worst: Math.max(...this.late.slice(-100_000)) }
  }
}

async function roundTrip({ seconds }) {
  return withPool(1, async (pool, call) => {
    const times = []
    for (let i = 0; i < 20; i++) await call('nothing', i)
    const end = now() + seconds
    for (let start; (start = now()) < end; ) {
      await call('nothing', 1)
      times.push(now() - start)
    }
    return { p50: percentile(times, 50), p99: percentile(times, 99) }
  })
}

async function throughput({ seconds }) {
  const flow = (workers, inFlight) =>
    withPool(workers, (pool, call) => rate(() => call('nothing', 1), inFlight, seconds))
  return { one: await flow(1, 64), many: await flow(CORES, 64), crowd: await flow(CORES, 1000) }
}

async function shortJobs({ seconds }) {
  return withPool(CORES, async (pool, call) => {
    const ticker = new Ticker()
    ticker.start()
    const found = await rate(() => call('burn', 0.002), 64, seconds)
    return { share: (found * 0.002) / CORES, ...(await ticker.stop()) }
  })
}

async function burst() {
  const jobs = 50_000
  return withPool(CORES, async (pool, call) => {
    await Promise.all(Array.from({ length: 500 }, () => call('nothing', 1)))
    const ticker = new Ticker()
    ticker.start()
    const start = now()
    const running = Array.from({ length: jobs }, (_, i) => call('nothing', i))
    const submitted = now()
    ticker.begin()
    await Promise.all(running)
    const took = now() - submitted
    return { submit: (submitted - start) / jobs, ...(await ticker.stop()), rate: jobs / took }
  })
}

// Asks the same program for this one's memory as the cases in Python.
async function sampled(use) {
  const program = new URL('../harness/pss.py', import.meta.url).pathname
  const sampler = spawn('python3', [program, String(process.pid)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: sampler.stdout })[Symbol.asyncIterator]()
  const found = await use(async () => {
    sampler.stdin.write('\n')
    const [least, most, present] = (await lines.next()).value.split(' ').map(Number)
    return { least, most, present }
  })
  sampler.stdin.end()
  return found
}

async function payloadMemory() {
  return withPool(1, async (pool, call) => {
    const array = new Float64Array(2 ** 24).fill(1)
    await call('total', new Float64Array(1000))
    await sleep(1)
    return sampled(async (sinceLast) => {
      const before = (await sinceLast()).present
      await call('total', array)
      const peak = (await sinceLast()).most
      await sleep(5)
      return { peak: peak - before, after: (await sinceLast()).present - before }
    })
  })
}

async function payloads({ case: kind, sizes, seconds }) {
  if (kind === 'memory') return payloadMemory()
  return withPool(1, async (pool, call) => {
    const found = {}
    for (const size of sizes) {
      const [name, argument] = {
        'array in': () => ['total', new Float64Array(size / 8).fill(1)],
        'bytes in': () => ['measure', new Uint8Array(size).fill(120)],
        'array out': () => ['produce', size],
        'bytes out': () => ['produceBytes', size],
      }[kind]()
      await call(name, argument)
      const times = []
      for (const end = now() + seconds; times.length < 5 || now() < end; ) {
        const start = now()
        await call(name, argument)
        times.push(now() - start)
      }
      found[size] = percentile(times, 50)
    }
    return found
  })
}

async function lag({ case: kind, seconds }) {
  const MB = 1024 * 1024
  return withPool(2, async (pool, call) => {
    await call('nothing', 1)
    const ticker = new Ticker()
    ticker.start()
    const done = await {
      idle: async () => (await sleep(seconds), 0),
      '4 x 16 MB': () => send(new Float64Array((16 * MB) / 8).fill(1), 4),
      '128 MB': () => send(new Float64Array((128 * MB) / 8).fill(1), 1),
      'small jobs': drain,
      lists,
    }[kind]()
    return { ...(await ticker.stop()), done }

    function send(array, inFlight) {
      return rate(() => call('total', array), inFlight, seconds)
    }

    async function drain() {
      const running = Array.from({ length: 50_000 }, (_, i) => call('nothing', i))
      ticker.begin()
      const start = now()
      await Promise.all(running)
      return running.length / (now() - start)
    }

    function lists() {
      const turns = [
        Array.from({ length: 1_000_000 }, (_, i) => i),
        Array.from({ length: 100_000 }, (_, i) => [i, -i]),
      ]
      let turn = 0
      return rate(() => call('count', turns[turn++ % 2]), 2, seconds)
    }
  })
}

async function start() {
  const start = now()
  const pool = makePool(CORES)
  await pool.run(1, { name: 'nothing' })
  const first = now() - start
  await pool.destroy()
  return { first, whole: first + imported }
}

async function memory() {
  const pss = () => Number(/^Pss: +(\d+)/m.exec(readFileSync('/proc/self/smaps_rollup'))[1])
  const take = (workers) =>
    withPool(workers, async (pool, call) => {
      await Promise.all(Array.from({ length: workers }, () => call('wait', 0.1)))
      await sleep(0.5)
      return pss() * 1024
    })
  const few = await take(2)
  const many = await take(6)
  return { worker: (many - few) / 4 }
}

async function limits({ seconds }) {
  const within = (call, limit, name, argument) =>
    call(name, argument, { signal: AbortSignal.timeout(limit * 1000) })
  const flow = await withPool(CORES, (pool, call) =>
    rate(() => within(call, 10, 'nothing', 1), 64, seconds),
  )
  return withPool(1, async (pool, call) => {
    await call('nothing', 1)
    const start = now()
    await within(call, LIMIT, 'loop', LOOP).catch(() => {})
    const late = now() - start - LIMIT
    await call('nothing', 1)
    const free = now() - start - LIMIT
    return { flow, late, free: free < LOOP - LIMIT ? free : 'runs on' }
  })
}

const cannot = (reason) => async () => ({ cannot: reason })
const CASES = {
  round_trip: roundTrip,
  throughput,
  mapping: cannot('has no map'),
  short_jobs: shortJobs,
  burst,
  payloads,
  lag,
  start,
  recovery: cannot('has threads: a crash ends the program'),
  memory,
  limits,
}

const [name, settings] = process.argv.slice(2)
console.log(JSON.stringify(await CASES[name](JSON.parse(settings ?? '{}'))))
process.exit(0)
