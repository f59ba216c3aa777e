/** The README's programs are sound TypeScript; integration/e2e/test_strand_browser.py runs them. */

import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'

import ts from 'typescript'

import * as strand from '../src/index.js'

const README = readFileSync('README.md', 'utf8')

test("the README's programs pass the compiler as strictly as the package does", () => {
  const folder = join(__dirname, 'readme')
  mkdirSync(folder, { recursive: true })
  const files = [...README.matchAll(/```ts\n\/\/ (\w+\.ts)\n([^]*?)```/g)].map(([, name, code]) => {
    const file = join(folder, name!)
    writeFileSync(file, code!)
    return file
  })
  assert.deepEqual(files.length, 3)
  const { config } = ts.readConfigFile('tsconfig.json', (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: Record<string, unknown> }
  }
  const paths = { '@sennit/strand': [resolve('src/index.ts')] }
  const options = {
    ...config.compilerOptions,
    paths,
    typeRoots: [resolve('../../../node_modules/@types')],
  }
  const parsed = ts.convertCompilerOptionsFromJson(options, process.cwd())
  const program = ts.createProgram(files, parsed.options)
  const complaints = ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '))
  assert.deepEqual(complaints, [])
})

test('every function and method of the API table exists', () => {
  const api = README.slice(
    README.indexOf('## The API'),
    README.indexOf('A producer never overwrites'),
  )
  const owners: Record<string, object> = {
    StrandWriter: strand.StrandWriter.prototype,
    StrandView: strand.StrandView.prototype,
    RecordCursor: strand.RecordCursor.prototype,
    StrandBridge: strand.StrandBridge.prototype,
  }
  let owner: object = strand
  let named = 0
  for (const [, name] of api.matchAll(/`(\w+)(?:\([^`]*\))?`/g)) {
    if (name! in owners) owner = owners[name!]!
    else if (
      /^[a-z]+[A-Z]|^(begin|write|abort|reset|seek|get|finalize|abandon|close)$/.test(name!)
    ) {
      assert.ok(name! in owner || name! in strand, `${name} of the README does not exist`)
      named += 1
    }
  }
  assert.ok(named > 40, `${named} names`)
})
