// The database surface of the firebase SDK, step by step; prints one line of JSON: what each saw.
import { deleteApp, initializeApp } from 'firebase/app'
import * as db from 'firebase/database'

const [url, namespace] = process.argv.slice(2)
const options = { databaseURL: `${url}?ns=${namespace}`, projectId: 'elkyn' }
const app = initializeApp(options)
const database = db.getDatabase(app)
const at = (path) => db.ref(database, path)
const read = async (query) => (await db.get(query)).val()
const keys = (snapshot) => {
  const found = []
  snapshot.forEach((child) => void found.push(child.key))
  return found
}
const until = async (found) => {
  while (!found()) await new Promise((resolve) => setTimeout(resolve, 10))
}

const steps = {
  async set() {
    await db.set(at('a'), { b: 1, c: [1, 2, { x: 'é' }] })
    return read(at('a'))
  },
  async update() {
    await db.update(at('a'), { b: 2, 'd/e': true, c: null })
    return read(at('a'))
  },
  async push() {
    const pushed = await db.push(at('log'), { n: 1 })
    return [pushed.key.length, await read(pushed)]
  },
  async onValue() {
    const seen = []
    const off = db.onValue(at('live'), (snapshot) => seen.push(snapshot.val()))
    await db.set(at('live'), 1)
    await db.set(at('live/x'), 2)
    await db.remove(at('live'))
    off()
    return seen
  },
  async childEvents() {
    const seen = []
    const children = at('children')
    await db.set(children, { a: 1, b: 2 })
    const note = (kind) => (snapshot) => seen.push([kind, snapshot.key, snapshot.val()])
    db.onChildAdded(children, note('added'))
    db.onChildChanged(children, note('changed'))
    db.onChildRemoved(children, note('removed'))
    await until(() => seen.length === 2)
    await db.set(db.child(children, 'c'), 3)
    await db.set(db.child(children, 'a'), 9)
    await db.remove(db.child(children, 'b'))
    db.off(children)
    return seen
  },
  async query() {
    const records = at('records')
    await db.set(records, { x: { n: 3 }, y: { n: 1 }, z: { n: 2 }, w: { n: 7 } })
    const lowest = db.query(records, db.orderByChild('n'), db.limitToFirst(2))
    const range = db.query(records, db.orderByKey(), db.startAfter('w'), db.endBefore('z'))
    return [keys(await db.get(lowest)), await read(range)]
  },
  async liveQuery() {
    const records = at('records')
    const lowest = db.query(records, db.orderByChild('n'), db.limitToFirst(2))
    let last = ''
    const off = db.onValue(lowest, (snapshot) => (last = keys(snapshot).join('')))
    const seen = []
    const settled = async (wanted) => {
      await until(() => last === wanted)
      seen.push(last)
    }
    await settled('yz')
    await db.set(db.child(records, 'v'), { n: 0 })
    await settled('vy')
    await db.remove(db.child(records, 'v'))
    await settled('yz')
    await db.set(db.child(records, 'y/n'), 100)
    await settled('zx')
    off()
    return seen
  },
  async transaction() {
    const counter = at('counter')
    await db.set(counter, 5)
    const add = () => db.runTransaction(counter, (count) => (count ?? 0) + 1)
    const done = await Promise.all(Array.from({ length: 5 }, add))
    return [done.every((result) => result.committed), await read(counter)]
  },
  async transactionOnObject() {
    const value = { a: 1.5, b: 'é😀', c: true, 10: 1, 2: 3, n: -0.25, big: 9007199254740991 }
    await db.set(at('object'), value)
    const change = (current) => current && { ...current, b: 'changed' }
    const { committed, snapshot } = await db.runTransaction(at('object'), change)
    return [committed, snapshot.val()]
  },
  async increment() {
    await db.set(at('i'), db.increment(2))
    await db.set(at('i'), db.increment(0.5))
    return read(at('i'))
  },
  async serverTimestamp() {
    await db.set(at('time'), db.serverTimestamp())
    return Math.abs((await read(at('time'))) - Date.now()) < 60_000
  },
  async priorities() {
    await db.setWithPriority(at('p'), { v: 1 }, 5)
    await db.setWithPriority(at('p/k'), 'x', 'last')
    const snapshot = await db.get(at('p'))
    const { committed } = await db.runTransaction(at('p'), (now) => now && { ...now, v: 2 })
    return [snapshot.priority, snapshot.exportVal(), committed]
  },
  async longText() {
    const text = 'é'.repeat(100_000)
    await db.set(at('long'), text)
    return (await read(at('long'))) === text
  },
  async onDisconnect() {
    const other = initializeApp(options, 'other')
    const theirs = db.getDatabase(other)
    const me = db.ref(theirs, 'presence/me')
    await db.set(me, 'online')
    await db.onDisconnect(me).set('gone')
    await db.onDisconnect(db.ref(theirs, 'presence')).update({ t: db.serverTimestamp(), 'x/y': 1 })
    await db.onDisconnect(db.ref(theirs, 'presence/x')).cancel()
    let last = null
    const off = db.onValue(at('presence'), (snapshot) => (last = snapshot.val()))
    await until(() => last?.me === 'online')
    db.goOffline(theirs)
    await until(() => last.me === 'gone' && last.t)
    off()
    await deleteApp(other)
    return [last.me, typeof last.t, last.x ?? null]
  },
  async reconnect() {
    const seen = []
    const off = db.onValue(at('back'), (snapshot) => seen.push(snapshot.val()))
    await db.set(at('back'), 1)
    db.goOffline(database)
    const pending = db.set(at('back'), 2)
    db.goOnline(database)
    await pending
    off()
    return seen
  },
}

const seen = {}
for (const [name, step] of Object.entries(steps)) seen[name] = await step()
console.log(JSON.stringify(seen))
await deleteApp(app)
process.exit(0)
