import assert from 'node:assert/strict'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import { Kernel } from '../src/engine/kernel.ts'
import { parseType } from '../src/engine/types.ts'
import { SennitError } from '../src/errors.ts'
import { col, count, lit } from '../src/plan/expr.ts'
import type { ExprJson } from '../src/plan/json.ts'

const HOSTILE = [
  "'];globalThis.broken=1;//",
  '`${globalThis.broken=1}`',
  '"+(globalThis.broken=1)+"',
  '*/globalThis.broken=1/*',
  'a\u2028globalThis.broken=1',
  '\\u0027;globalThis.broken=1;\\u0027',
  '__proto__',
  'constructor',
]

/** The texts that become code while something runs. */
async function codeOf(run: () => Promise<unknown>): Promise<string> {
  const texts: string[] = []
  const Original = globalThis.Function
  globalThis.Function = new Proxy(Original, {
    construct: (target, args: string[]) => {
      texts.push(...args)
      return Reflect.construct(target, args) as object
    },
  })
  try {
    await run()
  } finally {
    globalThis.Function = Original
  }
  return texts.join('\n')
}

test('no name and no text of a plan or of a file becomes code', async () => {
  for (const [at, text] of HOSTILE.entries()) {
    const quoted = `"${text.replaceAll('"', '""')}"`
    // Another number of columns each time, so that nothing is compiled already.
    const more = Array.from({ length: at + 20 }, (_, column) => `,c${column}`).join('')
    const header = `${quoted},n${more}\n`
    const file = new File([header, `${quoted},1${',2'.repeat(at + 20)}\n`], 'hostile.csv')
    const code = await codeOf(async () => {
      const rows = Elytra.file(file)
        .filter(
          col<string>(text)
            .eq(text)
            .and(col<string>(text).like(`${text}%`)),
        )
        .filter(col<string>(text).replace(text, '-').ne(text))
      const grouped = await rows
        .groupBy(text)
        .agg({ [`x${text}`]: count(), t: lit(text).min() })
        .collect()
      assert.deepEqual({ ...grouped.rows[0] }, { [text]: text, [`x${text}`]: 1, t: text })
    })
    assert.notEqual(code, '')
    assert.ok(!code.includes('broken') && !code.includes('__proto__'), code)
  }
  assert.equal((globalThis as { broken?: number }).broken, undefined)
})

test('a plan with something else than texts and numbers in it is refused', () => {
  const fields = [{ name: 'n', type: parseType('Int64') }]
  const hostile = [
    { fn: 'toString', args: [{ col: 'n' }] },
    { fn: "add'];globalThis.broken=1;//", args: [{ col: 'n' }] },
    { fn: 'add', args: [{ col: 'n' }, { lit: '1;globalThis.broken=1', type: 'Int64' }] },
    { fn: 'add', args: [{ col: 'n' }, { lit: '1', type: 'Int64;globalThis.broken=1' }] },
    { cast: { col: 'n' }, type: 'Timestamp(us);globalThis.broken=1' },
    { fn: 'gt', args: [{ col: 'n' }, { lit: { toString: () => 'x' }, type: 'Int64' }] },
    {
      fn: 'round',
      args: [
        { cast: { col: 'n' }, type: 'Float64' },
        { lit: '1);globalThis.broken=1', type: 'Int64' },
      ],
    },
  ] as unknown as ExprJson[]
  for (const expr of hostile)
    assert.throws(
      () =>
        Kernel.of(
          [
            {
              op: 'project',
              input: { op: 'scan', source: { dataset: '' } },
              columns: [{ name: 'x', expr }],
            },
          ],
          fields,
        ).run({ fields, columns: [{ values: new Float64Array([1]), nulls: null }], rows: 1 }),
      (error) => error instanceof SennitError,
      JSON.stringify(expr),
    )
  assert.equal((globalThis as { broken?: number }).broken, undefined)
})
