/** Realtime events on a tree: Firebase's `put` replaces what is at a path, `patch` merges children into it. */

/** A value of the tree: JSON without arrays at the places this app looks at. */
export type Tree = unknown

/** One event of a stream. Paths are relative to what the stream watches; `/` is all of it. */
export interface TreeEvent {
  type: 'put' | 'patch'
  path: string
  data: Tree
}

/** The tree after an event; what the event does not touch stays the same object. */
export function applyEvent(tree: Tree, event: TreeEvent): Tree {
  const keys = segments(event.path)
  if (event.type === 'put') return replaceAt(tree, keys, event.data)
  const changes = isRecord(event.data) ? event.data : {}
  return Object.entries(changes).reduce<Tree>(
    (current, [path, value]) => replaceAt(current, [...keys, ...segments(path)], value),
    tree,
  )
}

/** The value at a path, or null. */
export function valueAt(tree: Tree, path: string): Tree {
  return segments(path).reduce<Tree>(
    (node, key) => (isRecord(node) ? (node[key] ?? null) : null),
    tree ?? null,
  )
}

function replaceAt(tree: Tree, keys: readonly string[], value: Tree): Tree {
  const [key, ...rest] = keys
  if (key === undefined) return value
  const node = isRecord(tree) ? tree : {}
  const child = replaceAt(node[key] ?? null, rest, value)
  const next = { ...node }
  // Null is absence: the key goes, and with its last child the parent goes as well.
  if (child === null || child === undefined) delete next[key]
  else next[key] = child
  return Object.keys(next).length > 0 ? next : null
}

function segments(path: string): string[] {
  return path.split('/').filter((part) => part !== '')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
