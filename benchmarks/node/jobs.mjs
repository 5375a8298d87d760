// What the threads of piscina run: the same as workloads.py and payload_jobs.py.

import { performance } from 'node:perf_hooks'

export function nothing(value) {
  return value
}

// A thread cannot see its own processor time, so this is wall time: with more threads
// than cores, it flatters.
export function burn(seconds) {
  const end = performance.now() + seconds * 1000
  while (performance.now() < end);
  return seconds
}

export const loop = burn

export function total(array) {
  let sum = 0
  for (let i = 0; i < array.length; i++) sum += array[i]
  return sum
}

export function measure(data) {
  if (data[0] !== data[data.length - 1]) throw new Error('not what was sent')
}

export function count(items) {
  return items.length
}

let made
export function produce(size) {
  if (made?.length !== size / 8) made = new Float64Array(size / 8).fill(1)
  return made
}

export function produceBytes(size) {
  return new Uint8Array(size).fill(120)
}

export function wait(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000))
}
