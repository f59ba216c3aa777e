// Months, hours and days as keys, through the firebase SDK; prints one line of JSON.
import { deleteApp, initializeApp } from 'firebase/app'
import * as db from 'firebase/database'

const [url, namespace] = process.argv.slice(2)
const app = initializeApp({ databaseURL: `${url}?ns=${namespace}`, projectId: 'elkyn' })
const months = db.ref(db.getDatabase(app), 'months')
const value = Object.fromEntries(
  Array.from({ length: 12 }, (_, month) => [String(month + 1).padStart(2, '0'), month + 1]),
)
await db.set(months, value)
const keysOf = async (...parts) => {
  const keys = []
  const found = await db.get(db.query(months, db.orderByKey(), ...parts))
  found.forEach((child) => void keys.push(child.key))
  return keys
}
const last = await keysOf(db.limitToLast(1))
const range = await keysOf(db.startAt('08'), db.endAt('11'))
let runs = 0
const done = await db.runTransaction(months, (now) => {
  runs += 1
  return now === null ? null : { ...now, '07': now['07'] + 100 }
})
const after = done.snapshot.val()
console.log(JSON.stringify({ last, range, committed: done.committed, runs, after }))
await deleteApp(app)
