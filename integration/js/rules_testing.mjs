// The rules of a project, tested with `@firebase/rules-unit-testing` as its guide does; prints one line
// of JSON: what each check found.
import {
  assertFails,
  assertSucceeds,
  initializeTestEnvironment,
} from '@firebase/rules-unit-testing'
import { get, ref, set, update } from 'firebase/database'

const [host, port] = process.argv.slice(2)
const rules = {
  rules: {
    public: { '.read': true },
    users: { $uid: { '.read': 'auth.uid === $uid', '.write': 'auth.uid === $uid' } },
    staff: { '.read': 'auth.token.role === "staff"' },
    checked: { '.write': 'auth != null', '.validate': 'newData.isNumber()' },
  },
}
const environment = await initializeTestEnvironment({
  projectId: 'demo-rules',
  database: { host, port: Number(port), rules: JSON.stringify(rules) },
})
const ann = environment.authenticatedContext('ann').database()
const staff = environment.authenticatedContext('eve', { role: 'staff' }).database()
const anonymous = environment.unauthenticatedContext().database()
const found = {}
const check = async (name, work) => {
  found[name] = await work().then(
    () => 'ok',
    (error) => String(error),
  )
}

await check('a user writes what is theirs', () =>
  assertSucceeds(set(ref(ann, 'users/ann'), { n: 1 })),
)
await check('a user reads what is theirs', () => assertSucceeds(get(ref(ann, 'users/ann'))))
await check('a user writes nothing of others', () => assertFails(set(ref(ann, 'users/bob'), 1)))
await check('without a user nothing is written', () =>
  assertFails(update(ref(anonymous, 'users/ann'), { n: 2 })),
)
await check('without a user what is public is read', () =>
  assertSucceeds(get(ref(anonymous, 'public'))),
)
await check('claims of a token count', async () => {
  await assertSucceeds(get(ref(staff, 'staff')))
  await assertFails(get(ref(ann, 'staff')))
})
await check('values are validated', async () => {
  await assertSucceeds(set(ref(ann, 'checked'), 1))
  await assertFails(set(ref(ann, 'checked'), 'text'))
})
await check('rules are switched off, and data is cleared', async () => {
  await environment.withSecurityRulesDisabled(async (context) => {
    await set(ref(context.database(), 'users/bob'), 1)
  })
  await environment.clearDatabase()
  await environment.withSecurityRulesDisabled(async (context) => {
    const left = await get(ref(context.database(), 'users'))
    if (left.exists()) throw new Error('data is left')
  })
})
console.log(JSON.stringify(found))
await environment.cleanup()
process.exit(0)
