// What the firebase SDK's own code makes of trees: hashes and windows, by its internal classes. Reads
// cases from the file that is named, and prints one line of JSON with the result of each case.
import { readFileSync } from 'node:fs'
import { createRequire, Module } from 'node:module'

const require = createRequire(import.meta.url)
const file = require.resolve('@firebase/database')
const names = [
  'nodeFromJSON', 'ChildrenNode', 'Path', 'PathIndex', 'KEY_INDEX', 'VALUE_INDEX', 'PRIORITY_INDEX',
  'QueryParams', 'queryParamsOrderBy', 'queryParamsStartAt', 'queryParamsStartAfter',
  'queryParamsEndAt', 'queryParamsEndBefore', 'queryParamsLimitToFirst', 'queryParamsLimitToLast',
  'queryParamsGetNodeFilter',
] // prettier-ignore
const loaded = new Module(file)
loaded.filename = file
loaded.paths = Module._nodeModulePaths(file)
loaded._compile(`${readFileSync(file, 'utf8')}\nexports.sdk = { ${names.join(', ')} }`, file)
const { sdk } = loaded.exports

const indexes = {
  $key: sdk.KEY_INDEX,
  $value: sdk.VALUE_INDEX,
  $priority: sdk.PRIORITY_INDEX,
  n: new sdk.PathIndex(new sdk.Path('n')),
}
const bounds = {
  start_at: sdk.queryParamsStartAt,
  start_after: sdk.queryParamsStartAfter,
  end_at: sdk.queryParamsEndAt,
  end_before: sdk.queryParamsEndBefore,
  limit_to_first: sdk.queryParamsLimitToFirst,
  limit_to_last: sdk.queryParamsLimitToLast,
}

const results = JSON.parse(readFileSync(process.argv[2], 'utf8')).map(
  ({ value, order, window }) => {
    const node = sdk.nodeFromJSON(value)
    const index = indexes[order]
    let params = sdk.queryParamsOrderBy(new sdk.QueryParams(), index)
    for (const [name, bound] of Object.entries(window)) {
      params = bounds[name](params, ...(Array.isArray(bound) ? bound : [bound]))
    }
    const filter = sdk.queryParamsGetNodeFilter(params)
    const shown = filter.updateFullNode(sdk.ChildrenNode.EMPTY_NODE, node.withIndex(index), null)
    const keys = []
    shown.forEachChild(index, (key) => void keys.push(key))
    return { hash: node.hash(), keys, val: node.val() }
  },
)
console.log(JSON.stringify(results))
