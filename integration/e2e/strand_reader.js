// A Worker of a test page: reads a ring to its end, and tells what it found.
import { StrandView } from '/strand/index'

self.onmessage = async ({ data }) => {
  try {
    const view = new StrandView(data.buffer)
    self.postMessage('attached')
    self.postMessage(await readToEnd(view, data.blocking))
  } catch (error) {
    self.postMessage(String(error))
  }
}

/** How many records are right; every reader of the tests checks them so. */
export async function readToEnd(view, blocking = false) {
  const cursor = view.allocateCursor()
  let right = 0
  for (let seq = 0; ; ) {
    const count = blocking ? view.waitForCommitSync(seq) : await view.waitForCommit(seq)
    if (count === seq) return right
    for (; seq < count; seq += 1) right += cursor.seek(seq) && isRight(cursor, seq) ? 1 : 0
    view.acknowledgeRead(count)
  }
}

function isRight(cursor, n) {
  const text = n % 7 === 0 ? null : `${n} größer `.repeat(n % 5)
  return (
    cursor.getU32('id') === n &&
    cursor.getString('text') === text &&
    cursor.getI32Array('samples').join() === [n, -n].slice(0, n % 3).join() &&
    cursor.getRef('kind') === ['low', 'high'][n % 2] &&
    cursor.getF64('score') === n / 4
  )
}
