// An app that knows nothing of this server but two lines: `node app.mjs HOST PORT ADMIN_TOKEN`.
import assert from 'node:assert/strict'
import { initializeApp } from 'firebase/app'
import * as accounts from 'firebase/auth'
import * as tree from 'firebase/database'

const [host, port, admin] = process.argv.slice(2)
const app = initializeApp({
  apiKey: 'any',
  projectId: 'elkyn',
  databaseURL: 'https://default.firebaseio.com',
})
const auth = accounts.getAuth(app)
const database = tree.getDatabase(app)
accounts.connectAuthEmulator(auth, `http://${host}:${port}`, { disableWarnings: true })
tree.connectDatabaseEmulator(database, host, Number(port))

const at = (path) => tree.ref(database, path)

async function refused(work) {
  await assert.rejects(work, /PERMISSION_DENIED|permission_denied|Permission denied/i)
}

async function asks(path, body) {
  const answer = await fetch(`http://${host}:${port}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${admin}` },
    body: JSON.stringify(body),
  })
  assert.equal(answer.status, 200)
}

// Nobody may read; a user may read and write their own.
await refused(() => tree.get(at('users/other')))
const { user } = await accounts.createUserWithEmailAndPassword(auth, 'ann@app.test', 'secret1')
await tree.set(at(`users/${user.uid}/name`), 'Ann')
assert.equal((await tree.get(at(`users/${user.uid}/name`))).val(), 'Ann')
await refused(() => tree.set(at('users/other/name'), 'x'))

// Claims that an administrator sets count from the next token on.
const project = '/identitytoolkit.googleapis.com/v1/projects/elkyn/accounts:update'
await asks(project, { localId: user.uid, customAttributes: '{"admin": true}' })
await user.getIdToken(true)
await new Promise((resolve) => setTimeout(resolve, 200)) // the SDK sends the new token by itself
assert.equal((await tree.get(at('users/other'))).val(), null)

// A listener is cancelled, with an error, when its user is disabled.
const cancelled = new Promise((resolve) => {
  tree.onValue(at(`users/${user.uid}`), () => {}, resolve)
})
await tree.get(at(`users/${user.uid}`))
await asks(project, { localId: user.uid, disableUser: true })
assert.match(String(await cancelled), /permission_denied/i)
process.exit(0)
