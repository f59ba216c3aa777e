// The auth SDK against a server: `node auth.mjs URL`. Exits with 0 when all of it holds.
import assert from 'node:assert/strict'
import { initializeApp } from 'firebase/app'
import * as sdk from 'firebase/auth'

const url = process.argv[2]
const auth = sdk.getAuth(initializeApp({ apiKey: 'any', projectId: 'elkyn' }))
sdk.connectAuthEmulator(auth, url, { disableWarnings: true })

const changes = []
sdk.onIdTokenChanged(auth, (user) => changes.push(user?.uid ?? null))

async function refused(code, work) {
  await assert.rejects(work, (error) => {
    assert.equal(error.code, code)
    return true
  })
}

async function anonymousUsersCanBeLinked() {
  const { user } = await sdk.signInAnonymously(auth)
  assert.equal(user.isAnonymous, true)
  const password = sdk.EmailAuthProvider.credential('linked@example.com', 'secret1')
  const linked = await sdk.linkWithCredential(user, password)
  assert.equal(linked.user.uid, user.uid)
  assert.equal(linked.user.isAnonymous, false)
}

async function usersSignUp() {
  const { user } = await sdk.createUserWithEmailAndPassword(auth, 'Ann@example.com', 'secret1')
  assert.equal(user.email, 'ann@example.com')
  const again = (email, password) => () => sdk.createUserWithEmailAndPassword(auth, email, password)
  await refused('auth/email-already-in-use', again('ann@example.com', 'secret1'))
  await refused('auth/weak-password', again('new@example.com', '12345'))
  await refused('auth/invalid-email', again('example.com', 'secret1'))
  return user
}

async function usersChangeThemselves(user) {
  await sdk.updateProfile(user, { displayName: 'Ann', photoURL: 'http://example.com/a.png' })
  await sdk.reload(user)
  assert.equal(user.displayName, 'Ann')
  assert.deepEqual(
    user.providerData.map((provider) => provider.providerId),
    ['password'],
  )
  const before = await user.getIdToken()
  assert.notEqual(await user.getIdToken(true), before)
  const result = await user.getIdTokenResult()
  assert.equal(result.signInProvider, 'password')
  assert.equal(result.claims.name, 'Ann')
  await sdk.updatePassword(user, 'secret2')
  const credential = sdk.EmailAuthProvider.credential('ann@example.com', 'secret2')
  await sdk.reauthenticateWithCredential(user, credential)
}

async function usersSignInAndOut(uid) {
  await sdk.signOut(auth)
  assert.equal(auth.currentUser, null)
  const signIn = (email, password) => () => sdk.signInWithEmailAndPassword(auth, email, password)
  await refused('auth/wrong-password', signIn('ann@example.com', 'secret1'))
  await refused('auth/user-not-found', signIn('unknown@example.com', 'secret1'))
  const { user } = await signIn('ann@example.com', 'secret2')()
  assert.equal(user.uid, uid)
  assert.deepEqual(await sdk.fetchSignInMethodsForEmail(auth, 'ann@example.com'), ['password'])
}

async function forgottenPasswordsAreReset() {
  await sdk.sendPasswordResetEmail(auth, 'ann@example.com')
  const answer = await fetch(`${url}/emulator/v1/projects/elkyn/oobCodes`, {
    headers: { authorization: 'Bearer owner' },
  })
  const { oobCodes } = await answer.json()
  const { oobCode } = oobCodes.at(-1)
  assert.equal(await sdk.verifyPasswordResetCode(auth, oobCode), 'ann@example.com')
  await sdk.confirmPasswordReset(auth, oobCode, 'secret3')
  await refused('auth/invalid-action-code', () =>
    sdk.confirmPasswordReset(auth, oobCode, 'secret4'),
  )
  const { user } = await sdk.signInWithEmailAndPassword(auth, 'ann@example.com', 'secret3')
  await sdk.sendEmailVerification(user)
  const codes = await fetch(`${url}/emulator/v1/projects/elkyn/oobCodes`, {
    headers: { authorization: 'Bearer owner' },
  })
  await sdk.applyActionCode(auth, (await codes.json()).oobCodes.at(-1).oobCode)
  await sdk.reload(user)
  assert.equal(user.emailVerified, true)
}

async function customTokensSignIn() {
  const made = await fetch(`${url}/auth/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ uid: 'custom1', level: 7 }),
  })
  const { token } = await made.json()
  const { user } = await sdk.signInWithCustomToken(auth, token)
  assert.equal(user.uid, 'custom1')
  assert.equal((await user.getIdTokenResult(true)).claims.level, 7)
  await refused('auth/invalid-custom-token', () => sdk.signInWithCustomToken(auth, `${token}x`))
}

async function accountsEnd() {
  await sdk.deleteUser(auth.currentUser)
  assert.equal(auth.currentUser, null)
}

await anonymousUsersCanBeLinked()
const ann = await usersSignUp()
await usersChangeThemselves(ann)
await usersSignInAndOut(ann.uid)
await forgottenPasswordsAreReset()
await customTokensSignIn()
await accountsEnd()
assert.equal(changes.at(-1), null)
assert.ok(changes.includes(ann.uid))
assert.ok(changes.includes('custom1'))
process.exit(0)
