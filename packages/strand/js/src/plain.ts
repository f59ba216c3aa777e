/**
 * Plain v5 rings, whose header another implementation of layout version 5 wrote. The header is the
 * same up to byte 3072 and lacks the extension block with this package's counters. Before the first
 * role is acquired, the block is added and its counters are initialized from the words of version 5.
 */

import { StrandHeaderError } from './errors.js'
import {
  EXTENSION_AT,
  EXTENSION_MAGIC,
  HEADER_BYTES,
  staticBytesOf,
  type StrandMap,
} from './header.js'
import { AT, CONSUMER_COUNT, RingWords } from './words.js'

const LOCK_AT = EXTENSION_AT + 28
const POLLS_MAX = 1e8

/** Add the counters that roles need to a plain v5 ring; StrandHeaderError if there is no room. */
export function requireExtension(buffer: ArrayBufferLike, map: StrandMap): void {
  const words = new RingWords(buffer, map.version)
  for (let polls = 0; polls < POLLS_MAX; polls += 1) {
    if (words.load32(EXTENSION_AT) === EXTENSION_MAGIC) return
    checkRoom(buffer, map)
    // The thread that sets the lock word adds them; others spin, for a few microseconds.
    if (Atomics.compareExchange(words.i32, LOCK_AT >>> 2, 0, 1) !== 0) continue
    if (words.load32(EXTENSION_AT) !== EXTENSION_MAGIC) addExtension(words)
    words.store32(LOCK_AT, 0)
    return
  }
  throw new StrandHeaderError('extension', 'counters that another thread adds', 'none')
}

function checkRoom(buffer: ArrayBufferLike, map: StrandMap): void {
  const found = new DataView(buffer).getUint32(EXTENSION_AT, true)
  const end = staticBytesOf(buffer)
  if (map.version === 5 && end > EXTENSION_AT)
    throw new StrandHeaderError(
      'extension',
      `schema and metadata of a plain v5 ring that end by byte ${EXTENSION_AT}`,
      `an end at byte ${end}`,
    )
  const block = new Uint8Array(HEADER_BYTES - EXTENSION_AT)
  block.set(new Uint8Array(buffer, EXTENSION_AT, block.length))
  block.fill(0, LOCK_AT - EXTENSION_AT, LOCK_AT - EXTENSION_AT + 4)
  if (map.version === 5 && block.every((byte) => byte === 0)) return
  if (new Int32Array(buffer, EXTENSION_AT, 1)[0] === EXTENSION_MAGIC) return
  if (map.version === 5 && new Int32Array(buffer, LOCK_AT, 1)[0] === 1) return // being added
  throw new StrandHeaderError(
    'extension',
    `0x${EXTENSION_MAGIC.toString(16)}`,
    `0x${found.toString(16)}`,
  )
}

function addExtension(words: RingWords): void {
  const commit = words.load32(AT.v5Commit)
  const heap = words.load32(AT.v5HeapCommit) >>> 0
  for (const at of [AT.write, AT.commit]) words.store(at, commit)
  for (const at of [AT.heapWrite, AT.heapCommit]) words.store(at, heap)
  words.store32(AT.abort, words.load32(AT.v5Abort))
  let lowWaterMark = Infinity
  for (let index = 0; index < CONSUMER_COUNT; index += 1)
    lowWaterMark = Math.min(lowWaterMark, words.plainRead(index))
  if (lowWaterMark === Infinity) lowWaterMark = words.load32(AT.v5Read)
  words.store(AT.joinPosition, Math.min(lowWaterMark, commit))
  words.store32(EXTENSION_AT, EXTENSION_MAGIC) // last: a thread that sees it also sees the counters
}
