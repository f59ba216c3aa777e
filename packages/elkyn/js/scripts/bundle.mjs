/**
 * Puts the modules of `dist/browser.js` into one file that a page loads as it is, without comments.
 *
 * The modules of the package are few, import only each other, and name nothing twice; that is
 * checked, and makes their joined text mean the same.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

import ts from 'typescript'

const dist = fileURLToPath(new URL('../dist', import.meta.url))
const order = []
const owners = new Map()
const exported = new Map()

function read(name) {
  const text = readFileSync(join(dist, name), 'utf8')
  const options = { target: 'es2022', module: 'es2022', removeComments: true }
  const plain = ts.transpileModule(text, { compilerOptions: options }).outputText
  return ts.createSourceFile(name, plain, ts.ScriptTarget.ES2022, true)
}

function add(name) {
  if (exported.has(name)) return
  exported.set(name, [])
  const source = read(name)
  const kept = []
  for (const statement of source.statements) {
    if (ts.isImportDeclaration(statement)) add(target(statement, name))
    else if (ts.isExportDeclaration(statement)) reexport(statement, name)
    else kept.push(text(statement, name))
  }
  order.push(`// ${name}`, ...kept)
}

function target(statement, name) {
  const from = statement.moduleSpecifier?.text
  if (!from?.startsWith('./')) throw new Error(`${name} needs ${from}, which browsers do not have`)
  const renamed = statement.importClause?.namedBindings?.elements?.some((part) => part.propertyName)
  if (renamed) throw new Error(`${name} renames what it imports`)
  return basename(from)
}

function reexport(statement, name) {
  const from = target(statement, name)
  add(from)
  const names = statement.exportClause?.elements.map((part) => part.name.text)
  exported.get(name).push(...(names ?? exported.get(from)))
}

function text(statement, name) {
  for (const declared of namesOf(statement)) {
    if (owners.has(declared)) {
      throw new Error(`${declared} is in ${owners.get(declared)} and ${name}: rename one`)
    }
    owners.set(declared, name)
    if (isExported(statement)) exported.get(name).push(declared)
  }
  return statement.getText().replace(/^export /, '')
}

function namesOf(statement) {
  if (!ts.isVariableStatement(statement)) return statement.name ? [statement.name.text] : []
  return statement.declarationList.declarations.map(({ name }) => name.text)
}

function isExported(statement) {
  return statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false
}

add('browser.js')
const names = exported.get('browser.js').sort()
const bundle = `${order.join('\n')}\nexport { ${names.join(', ')} }\n`.replace(/^ +/gm, '')
writeFileSync(join(dist, 'elkyn.js'), bundle)
writeFileSync(
  join(dist, 'worker.js'),
  readFileSync(join(dist, 'worker.js'), 'utf8').replace("'./shared.js'", "'./elkyn.js'"),
)
const kilobytes = (bytes) => (bytes / 1000).toFixed(1)
const zipped = gzipSync(bundle, { level: 9 }).length
process.stdout.write(
  `dist/elkyn.js: ${kilobytes(bundle.length)} kB, ${kilobytes(zipped)} kB as gzip\n`,
)
