// What the firebase SDK reports of a database that the server refuses; prints one line of JSON: the
// error of each operation, and what the SDK logged. Names that end in `.test` lead to this machine.
import dns from 'node:dns'
import { initializeApp } from 'firebase/app'
import * as db from 'firebase/database'

const [url, namespace] = process.argv.slice(2)
const { lookup } = dns
dns.lookup = (name, ...rest) => lookup(name.endsWith('.test') ? '127.0.0.1' : name, ...rest)
const print = console.log
const logged = []
for (const level of ['log', 'warn']) console[level] = (...words) => logged.push(words.join(' '))
const app = initializeApp({ databaseURL: `${url}?ns=${namespace}`, projectId: 'my-app' })
const node = db.ref(db.getDatabase(app), 'months')
const rejected = (work) => work.then(String, (error) => error.message)
const cancelled = (query) =>
  new Promise((resolve) => db.onValue(query, resolve, (error) => resolve(error.message)))
const found = {
  get: await rejected(db.get(node)),
  set: await rejected(db.set(node, 1)),
  update: await rejected(db.update(node, { a: 1 })),
  listen: await cancelled(node),
  query: await cancelled(db.query(node, db.limitToLast(1))),
  transaction: await rejected(db.runTransaction(node, (now) => (now ?? 0) + 1)),
  onDisconnect: await rejected(db.onDisconnect(node).set(null)),
}
print(JSON.stringify({ ...found, logged }))
process.exit(0)
