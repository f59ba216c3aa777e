// An app with the configuration of a real project and the two lines of the README that connect it; prints
// one line of JSON. The lines are run as they are written there, but for the port.
import { readFileSync } from 'node:fs'
import { deleteApp, initializeApp } from 'firebase/app'
import { connectAuthEmulator, getAuth, signInAnonymously } from 'firebase/auth'
import * as db from 'firebase/database'

const [readme, port, databaseURL] = process.argv.slice(2)
const blocks = readFileSync(readme, 'utf8').matchAll(/^```js\n(.*?)^```$/gms)
const lines = [...blocks].map(([, code]) => code).find((code) => code.includes('connectAuth'))
const app = initializeApp({
  apiKey: 'AIzaSyAnyKeyOfARealProject',
  projectId: 'my-app',
  ...(databaseURL && { databaseURL }),
})
const { connectDatabaseEmulator, getDatabase } = db
const names = { app, connectAuthEmulator, connectDatabaseEmulator, getAuth, getDatabase }
new Function(...Object.keys(names), lines.replaceAll('9000', port))(...Object.values(names))

const before = await db
  .get(db.ref(getDatabase(app), 'users/x'))
  .then(String, (error) => error.message)
const { user } = await signInAnonymously(getAuth(app))
const months = db.ref(getDatabase(app), `users/${user.uid}/months`)
await db.set(months, { '01': 1, '08': 8, '09': 9, 10: 10, 12: 12 })
const add = () => db.runTransaction(db.child(months, '09'), (count) => (count ?? 0) + 1)
const done = await Promise.all(Array.from({ length: 5 }, add))
const last = []
const found = await db.get(db.query(months, db.orderByKey(), db.startAt('08'), db.limitToLast(3)))
found.forEach((child) => void last.push([child.key, child.val()]))
const result = {
  lines: lines.trim().split('\n').length,
  before,
  committed: done.filter(({ committed }) => committed).length,
  last,
}
console.log(JSON.stringify(result))
await deleteApp(app)
process.exit(0)
