import assert from 'node:assert/strict'
import { test } from 'node:test'

import { format, offsetOf, tokens } from '../../src/elkyn/dashboard/rules_text.js'

const RULES = `{
  // who may read
  "rules": {
    "users": {".indexOn": ["age", "name"], "$uid": {
      ".read": "auth.uid === $uid && data.child('a \\"b').val() > 12.5"
    }}, /* all others */ "$other": {".validate": false}
  }
}`

const kinds = (source: string, kind: string) =>
  tokens(source)
    .filter((token) => token.kind === kind)
    .map(({ text }) => text)

function random(seed: number): () => number {
  let state = seed
  return () => (state = (state * 48271) % 2147483647) / 2147483647
}

/** Texts that are nearly rules: their parts in any order. */
function* nearlyRules(count: number): Generator<string> {
  const parts = [
    '{', '}', '[', ']', ',', ':', ' ', '\n', '\n\n', '"', '"a"', '".read"', '"$b"', '"x\\"y"', '//c\n',
    '/*d*/', '/*', '/', '\\', "'", 'true', '-1.5e3', '"auth.uid == \'q\' && /r+/"', '😀', '\\"', 'null',
  ] // prettier-ignore
  const next = random(11)
  for (let each = 0; each < count; each += 1)
    yield Array.from({ length: next() * 40 }, () => parts[Math.floor(next() * parts.length)]).join(
      '',
    )
}

/** Whole rules of random shape, spaces and comments. */
function* wholeRules(count: number): Generator<string> {
  const next = random(5)
  const pick = (texts: string[]) => texts[Math.floor(next() * texts.length)] ?? ''
  const space = () => pick(['', ' ', '\n', '\n\n\n', '\t', '// c\n', '/* d */', ' /* e\n */\n'])
  const value = (depth: number): string => {
    const below = Array.from({ length: next() * (depth > 3 ? 1 : 4) }, () => value(depth + 1))
    const scalar = () => pick(['true', '"auth != null"', '-1', '"two\\nlines // no /*"', 'null'])
    const name = (index: number) => pick([`".r${index}"`, `"$v${index}"`, `"k\\"${index}"`])
    const joined = (each: string[]) => each.map((one) => space() + one + space()).join(',')
    if (next() < 0.3) return scalar()
    if (next() < 0.3) return `[${joined(below)}${space()}]`
    return `{${joined(below.map((one, index) => `${name(index)}${space()}:${space()}${one}`))}${space()}}`
  }
  for (let each = 0; each < count; each += 1) yield space() + value(0) + space()
}

const significant = (source: string) =>
  tokens(source)
    .filter(({ kind }) => kind !== 'space')
    .map(({ text }) => text.trim())

test('expressions are coloured inside their strings', () => {
  assert.deepEqual(kinds(RULES, 'name'), ['auth', 'data'])
  assert.deepEqual(kinds(RULES, 'variable'), ['"$uid"', '$uid', '"$other"'])
  assert.deepEqual(kinds(RULES, 'rule'), ['".indexOn"', '".read"', '".validate"'])
  assert.deepEqual(kinds(RULES, 'comment'), ['// who may read', '/* all others */'])
  assert.deepEqual(kinds(RULES, 'text'), ['"age"', '"name"', `'a \\"b'`])
  assert.deepEqual(kinds(RULES, 'number'), ['12.5'])
})

test('a regular expression and a division are distinguished', () => {
  const source = String.raw`{".write": "data.val().matches(/^a\\/[b]$/i) && 4 / 2 / 1 == 2"}`
  assert.deepEqual(kinds(source, 'regex'), [String.raw`/^a\\/[b]$/i`])
  assert.deepEqual(kinds(source, 'operator'), ['&&', '/', '/', '=='])
})

test('tokens together are their source, for any source', () => {
  for (const source of nearlyRules(2000))
    assert.equal(tokens(source).map(({ text }) => text).join(''), source) // prettier-ignore
})

test('formatted rules are indented, and keep comments and lines between groups', () => {
  assert.equal(
    format(RULES),
    `{
  // who may read
  "rules": {
    "users": {
      ".indexOn": ["age", "name"],
      "$uid": {
        ".read": "auth.uid === $uid && data.child('a \\"b').val() > 12.5"
      }
    },
    /* all others */ "$other": {
      ".validate": false
    }
  }
}
`,
  )
  assert.equal(format('{"a":{},\n\n\n"b":[]}'), '{\n  "a": {},\n\n  "b": []\n}\n')
})

test('a list that is too long for a line gets one line for each element', () => {
  const long = JSON.stringify({
    '.indexOn': Array.from({ length: 9 }, (_, n) => `a long name ${n}`),
  })
  assert.equal(format(long)?.split('\n').length, 14)
})

test('formatting changes nothing but spaces, and nothing at all the second time', () => {
  let formatted = 0
  for (const source of [...nearlyRules(2000), ...wholeRules(2000)]) {
    const once = format(source)
    if (once === null) continue
    formatted += 1
    assert.deepEqual(significant(once), significant(source))
    assert.equal(format(once), once, source)
  }
  assert.ok(formatted > 2000)
})

for (const broken of ['', '  ', '{', '{"a": 1', '{"a": "b}', '[}', '{} /* c', '{"a": §}'])
  test(`what is not complete is not formatted: ${broken}`, () => assert.equal(format(broken), null))

test('places are found by lines and characters', () => {
  assert.equal(offsetOf('ab\ncd', 2, 2), 4)
  assert.equal(offsetOf('a😀b', 1, 3), 3)
  assert.equal(offsetOf('ab', 9, 9), 2)
})
