// An app with accounts and rules by the firebase SDK, pointed at the emulator; prints what it saw.
import { deleteApp, initializeApp } from 'firebase/app'
import * as auth from 'firebase/auth'
import * as db from 'firebase/database'

const url = new URL(process.argv[2])
const namespace = process.argv[3]
const app = initializeApp({
  apiKey: 'any',
  projectId: 'elkyn',
  databaseURL: `${url.origin}?ns=${namespace}`,
})
const users = auth.getAuth(app)
auth.connectAuthEmulator(users, url.origin, { disableWarnings: true })
const database = db.getDatabase(app)
db.connectDatabaseEmulator(database, url.hostname, Number(url.port))
const at = (path) => db.ref(database, path)
const outcome = (promise) =>
  promise.then(
    (value) => value?.val?.() ?? 'done',
    (error) => error.code ?? error.message,
  )
const upload = (rules) =>
  fetch(`${url.origin}/.settings/rules.json?ns=${namespace}`, {
    method: 'PUT',
    headers: { authorization: 'Bearer owner' },
    body: JSON.stringify({ rules }),
  })
const until = async (found) => {
  while (!found()) await new Promise((resolve) => setTimeout(resolve, 10))
}

const own = { '.read': 'auth.uid === $uid', '.write': 'auth.uid === $uid' }
await upload({
  users: { $uid: own },
  open: { '.read': true, '.write': true, '.indexOn': 'n' },
})
const seen = {}
seen.unauthenticated = await outcome(db.set(at('users/x'), 1))
seen.open = await outcome(db.set(at('open'), { a: { n: 2 }, b: { n: 1 } }))
const ordered = (child) => db.query(at('open'), db.orderByChild(child), db.limitToFirst(1))
seen.indexed = await outcome(db.get(ordered('n')))
seen.unindexed = await outcome(db.get(ordered('m')))

const { user } = await auth.createUserWithEmailAndPassword(users, 'ann@example.com', 'secret1')
seen.ownWrite = await outcome(db.set(at(`users/${user.uid}`), 7))
seen.ownRead = await outcome(db.get(at(`users/${user.uid}`)))
seen.others = await outcome(db.get(at('users/other')))

const received = []
const note = (snapshot) => received.push(snapshot.val())
db.onValue(at(`users/${user.uid}`), note, (error) => received.push(error.code))
await until(() => received.length === 1)
await auth.signOut(users)
await until(() => received.length === 2)
seen.signedOut = received

await auth.signInAnonymously(users)
seen.anonymous = await outcome(db.set(at(`users/${users.currentUser.uid}`), 5))
const rules = []
db.onValue(
  at('open/a'),
  (snapshot) => rules.push(snapshot.val()),
  (error) => rules.push(error.code),
)
await until(() => rules.length === 1)
await upload({ '.read': false })
await until(() => rules.length === 2)
seen.revoked = rules
console.log(JSON.stringify(seen))
await deleteApp(app)
process.exit(0)
