/** The kernels in Node: `node.mjs DIST KIND FILE ROUNDS` prints CPU seconds of each round, and the rows. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import { kernels } from './engine.js'

const [dist, kind, path, rounds] = process.argv.slice(2)
const compute = await kernels((module) => import(pathToFileURL(join(dist, module)).href))
const bytes = new Uint8Array(readFileSync(path))
const cpu = []
let rows = []
for (let round = 0; round < Number(rounds); round += 1) {
  const before = process.cpuUsage()
  rows = compute(kind, bytes)
  const { user, system } = process.cpuUsage(before)
  cpu.push((user + system) / 1e6)
}
console.log(JSON.stringify({ cpu, rows }))
