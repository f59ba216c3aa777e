// Child events of the firebase SDK on several queries while another client writes; prints one line of
// JSON: the writes, and for each query the events after its first ones.
import { deleteApp, initializeApp } from 'firebase/app'
import * as db from 'firebase/database'

const [url, namespace, seed, rounds] = process.argv.slice(2)
const apps = []
const connect = () => {
  const options = { databaseURL: `${url}?ns=${namespace}`, projectId: 'elkyn' }
  apps.push(initializeApp(options, `app${apps.length}`))
  return db.getDatabase(apps.at(-1))
}
const until = async (found) => {
  while (!found()) await new Promise((resolve) => setTimeout(resolve, 2))
}

let state = Number(seed)
const random = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}
const pick = (choices) => choices[random(choices.length)]
const key = () => pick(['a', 'b', 'c', 'd', 'e', '1', '2', '10'])
const scalar = () => pick([null, random(5), random(5), `x${random(3)}`, true, { deep: random(3) }])
const child = () =>
  pick([
    scalar(),
    { n: scalar(), m: random(9) },
    { n: random(5), m: random(9) },
    { n: scalar(), '.priority': random(3) },
  ])
const write = () =>
  pick([
    () => ({ [key()]: null }),
    () => ({ [`${key()}/n`]: scalar() }),
    () => ({ [`${key()}/m`]: random(9) }),
    () => ({ [key()]: child(), [`${key()}z`]: child(), [`${key()}y/n`]: scalar() }),
    () => ({ [key()]: child() }),
    () => ({ [key()]: child() }),
  ])()

const windows = {
  all: [],
  last: [db.orderByChild('n'), db.limitToLast(2)],
  first: [db.orderByChild('n'), db.limitToFirst(3)],
  range: [db.orderByChild('n'), db.startAt(1), db.endAt(3)],
  keys: [db.orderByKey(), db.startAt('2'), db.limitToFirst(3)],
  values: [db.orderByValue(), db.limitToLast(3)],
  priorities: [db.orderByPriority(), db.limitToLast(2)],
}

const writer = connect()
await db.set(db.ref(writer, 'p'), { a: { n: 1 }, b: { n: 2 }, c: { n: 3 } })
const events = {}
const marks = []
for (const [name, parts] of Object.entries(windows)) {
  const database = connect()
  const query = db.query(db.ref(database, 'p'), ...parts)
  const log = (events[name] = [])
  let started = false
  const note = (type) => (snapshot, previous) => {
    const value = snapshot.exportVal()
    if (type === 'value') log.push([type, null, value, null])
    else log.push([type, snapshot.key, value, type === 'child_removed' ? null : previous])
  }
  db.onChildRemoved(query, note('child_removed'))
  db.onChildAdded(query, note('child_added'))
  db.onChildMoved(query, note('child_moved'))
  db.onChildChanged(query, note('child_changed'))
  db.onValue(query, note('value'))
  db.onValue(query, () => (started = true), { onlyOnce: true })
  await until(() => started)
  log.length = 0
  const place = marks.push(0) - 1
  db.onValue(db.ref(database, 'mark'), (snapshot) => (marks[place] = snapshot.val()))
}

const writes = []
for (let round = 1; round <= Number(rounds); round++) {
  const change = write()
  writes.push(change)
  await db.update(db.ref(writer, 'p'), change)
  await db.set(db.ref(writer, 'mark'), round)
  await until(() => marks.every((mark) => mark === round))
}
console.log(JSON.stringify({ writes, events }))
await Promise.all(apps.map(deleteApp))
