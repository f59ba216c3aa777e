import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { FileMismatch, UsageError } from '../src/errors.ts'
import { folderRecords, openFile } from '../src/node.ts'
import type { PickedFile } from '../src/uploads/picking.ts'
import {
  memoryRecords,
  RECORDS_MAX,
  type UploadRecord,
  type UploadRecords,
} from '../src/uploads/records.ts'
import { StreamUploader } from '../src/uploads/streamUploader.ts'
import type { Upload, UploadState } from '../src/uploads/upload.ts'
import { FakeClock, FakeNode, fakeWorker } from './fakeNode.ts'

const CONTENT = 'carrier,distance\nUA,1400\nAA,1089\n'
const flights = (content = CONTENT, name = 'flights.csv', lastModified = 7) =>
  new File([content], name, { lastModified })

/** A page of a browser: what it stores and the node outlive it. */
function page(node: FakeNode, records: UploadRecords): StreamUploader {
  return new StreamUploader({
    workers: 1,
    records,
    fetch: node.fetch,
    clock: new FakeClock(),
    startWorker: () => fakeWorker(node),
  })
}

async function until(upload: Upload, state: UploadState): Promise<void> {
  for (let turn = 0; upload.snapshot().state !== state; turn += 1) {
    assert.ok(turn < 10_000, `never ${state}, but ${upload.snapshot().state}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** A node with three of nine parts, and the records of the page that sent them. */
async function interrupted(
  source: File | PickedFile = flights(),
): Promise<[FakeNode, UploadRecords]> {
  const [node, records] = [new FakeNode(), memoryRecords()]
  node.refuseAfter = 3
  const first = page(node, records)
  await until(first.upload(source), 'failed')
  first.close()
  node.refuseAfter = Infinity
  return [node, records]
}

const starts = (node: FakeNode) => node.log.filter((line) => line === 'POST /api/start-upload')

test('what a visit left is listed, goes on with the file, and is forgotten once it is done', async () => {
  const [node, records] = await interrupted()
  const second = page(node, records)
  const [left] = await second.unfinished()
  assert.deepEqual([left?.name, left?.bytesDone, left?.hasHandle], ['flights.csv', 12, false])
  const upload = await second.resume(left!.uploadId, flights())
  await upload.finished
  assert.ok(upload.snapshot().resumed)
  assert.equal(node.bytes().toString(), CONTENT)
  assert.equal(starts(node).length, 1)
  assert.deepEqual(await records.list(), [])
})

test('the same file sent again goes on, unless it is read in another way', async () => {
  const [node, records] = await interrupted()
  const second = page(node, records)
  const upload = second.upload(flights())
  await upload.finished
  assert.ok(upload.snapshot().resumed)
  const [other, otherRecords] = await interrupted()
  const replaced = page(other, otherRecords).upload(flights(), { mode: 'replace' })
  await replaced.finished
  assert.ok(!replaced.snapshot().resumed)
})

test('another file is refused in words, and sends nothing', async () => {
  const [node, records] = await interrupted()
  const second = page(node, records)
  const long = 'x'.repeat(200_000)
  const others: [File, RegExp][] = [
    [flights(`${CONTENT}DL,7\n`), /has 38 bytes, not 33/],
    [flights(CONTENT.replace('UA', 'UB')), /content is another one/],
    [flights(CONTENT, 'trips.csv'), /named trips\.csv, not flights\.csv/],
    [flights(CONTENT, 'flights.csv', 8_000), /changed at 1970-01-01 00:00:08 UTC/],
    [flights(long), /200,000 bytes/],
  ]
  for (const [file, words] of others) {
    const refused = await second.resume('u1', file).catch((error: unknown) => error)
    assert.ok(refused instanceof FileMismatch)
    assert.match(refused.message, words)
  }
  assert.equal(node.parts.size, 3)
  assert.equal((await second.unfinished()).length, 1)
})

test('the tail of a long file counts, not only its head', async () => {
  const body = 'x'.repeat(200_000)
  const [node, records] = await interrupted(flights(`${body}a`))
  await assert.rejects(page(node, records).resume('u1', flights(`${body}b`)), FileMismatch)
})

test('a stored handle is asked for permission, and a refusal leaves the upload as it was', async () => {
  let permission: PermissionState = 'denied'
  const handle = {
    kind: 'file',
    getFile: async () => flights(),
    queryPermission: async () => 'prompt',
    requestPermission: async () => permission,
  } as unknown as FileSystemFileHandle
  const [node, records] = await interrupted({ file: flights(), handle })
  const second = page(node, records)
  assert.ok((await second.unfinished())[0]?.hasHandle)
  await assert.rejects(second.resume('u1'), { code: 'permission-denied' })
  permission = 'granted'
  await (
    await second.resume('u1')
  ).finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('without a handle the file is needed', async () => {
  const [node, records] = await interrupted()
  await assert.rejects(page(node, records).resume('u1'), { code: 'file-needed' })
})

test('what the node has forgotten is not listed, and its record goes', async () => {
  const [node, records] = await interrupted()
  node.forget()
  assert.deepEqual(await page(node, records).unfinished(), [])
  assert.deepEqual(await records.list(), [])
})

test('discarding deletes it on the node too', async () => {
  const [node, records] = await interrupted()
  await page(node, records).discard('u1')
  assert.ok(node.log.includes('DELETE /api/uploads/u1'))
  assert.deepEqual(await records.list(), [])
})

test('an upload whose completion was not answered is not sent a second time', async () => {
  const [node, records] = [new FakeNode(), memoryRecords()]
  node.completeFaults = [507]
  await until(page(node, records).upload(flights(), { mode: 'append' }), 'failed')
  const [record] = await records.list()
  assert.equal(record?.completing, false, 'the node has refused')
  await records.put({ ...record!, completing: true })
  node.forget()
  const again = page(node, records).upload(flights(), { mode: 'append' })
  await assert.rejects(again.finished, { code: 'upload-ended' })
  assert.equal(starts(node).length, 1)
})

test('cancelling deletes the record', async () => {
  const [node, records] = await interrupted()
  const upload = await page(node, records).resume('u1', flights())
  await upload.cancel()
  assert.deepEqual(await records.list(), [])
})

test('without storage an upload works, and says that it ends with the page', async () => {
  const broken: UploadRecords = {
    durable: true,
    list: async () => Promise.reject(new Error('blocked')),
    put: async () => Promise.reject(new Error('blocked')),
    remove: async () => Promise.reject(new Error('blocked')),
  }
  const upload = page(new FakeNode(), broken).upload(flights())
  await upload.finished
  assert.equal(upload.snapshot().resumable, false)
})

test('the number of records is limited, and old ones go', async () => {
  const records = memoryRecords()
  const [node, kept] = await interrupted()
  assert.equal(node.parts.size, 3)
  const [record] = (await kept.list()) as [UploadRecord]
  await records.put({ ...record, uploadId: 'ancient', startedAtMs: 0 })
  for (let at = 0; at < RECORDS_MAX + 20; at += 1)
    await records.put({ ...record, uploadId: `u${at}`, startedAtMs: Date.now() + at })
  const left = (await records.list()).map(({ uploadId }) => uploadId)
  assert.equal(left.length, RECORDS_MAX)
  assert.ok(left.includes('u119') && !left.includes('ancient') && !left.includes('u3'))
})

test('limits of the options are said', () => {
  for (const options of [{ partBytes: 1000 }, { partBytes: 1 << 30 }, { workers: 0 }])
    assert.throws(() => new StreamUploader(options), UsageError)
})

test('in Node a file of the disk goes on in another process', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'uploads-'))
  try {
    const path = join(folder, 'flights.csv')
    await writeFile(path, CONTENT)
    const records = folderRecords(join(folder, 'records'))
    const node = new FakeNode()
    node.refuseAfter = 3
    await until(page(node, records).upload(await openFile(path)), 'failed')
    node.refuseAfter = Infinity
    const upload = page(node, folderRecords(join(folder, 'records'))).upload(await openFile(path))
    await upload.finished
    assert.ok(upload.snapshot().resumed)
    assert.equal(node.bytes().toString(), CONTENT)
    assert.deepEqual(await readdir(join(folder, 'records')), [])
    await writeFile(join(folder, 'records', 'torn.json'), '{"uploadId": "u')
    assert.deepEqual(await records.list(), [])
    await utimes(path, 1, 1)
    await assert.rejects(openFile(folder), { code: 'bad-input' })
    await assert.rejects(openFile(join(folder, 'none.csv')), { code: 'bad-input' })
  } finally {
    await rm(folder, { recursive: true })
  }
})
