// Uploads a file with tus-js-client or with Uppy, as a program on Node.js does:
//   node tus.mjs ENDPOINT FILE plain|parallel|killed|resumed|uppy STORAGE
// `killed` ends the process by SIGKILL in the middle, `resumed` goes on with what STORAGE remembers.
// Prints one line of JSON: the upload's URL, its job, and the offset of the first byte that was sent.
import { createReadStream, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import * as tus from 'tus-js-client'

const [endpoint, file, mode, storage] = process.argv.slice(2)
const headers = { Authorization: `Bearer ${process.env.SENNIT_TOKEN}` }
const chunkSize = 256 * 1024
let job = null
let firstOffset = null

const options = {
  endpoint,
  headers,
  metadata: { filename: basename(file), filetype: 'text/csv' },
  retryDelays: [0, 200, 1000],
  onBeforeRequest(request) {
    const offset = request.getHeader('Upload-Offset')
    if (request.getMethod() === 'PATCH') firstOffset ??= Number(offset)
  },
  onAfterResponse(request, response) {
    job = response.getHeader('Sennit-Job') ?? job
  },
}

async function withUppy() {
  const { default: Uppy } = await import('@uppy/core')
  const { default: Tus } = await import('@uppy/tus')
  const uppy = new Uppy().use(Tus, { ...options, chunkSize, metadata: undefined, limit: 1 })
  // On Node.js tus-js-client takes a Buffer where browsers have a File.
  const data = readFileSync(file)
  const name = basename(file)
  data.size = data.length
  uppy.addFile({ name, type: 'text/csv', data, meta: { filename: name } })
  const { failed } = await uppy.upload()
  if (failed.length) throw new Error(failed[0].error)
  return uppy.getFiles()[0].uploadURL
}

async function withTus() {
  const more = { urlStorage: new tus.FileUrlStorage(storage), chunkSize }
  if (mode === 'parallel') Object.assign(more, { parallelUploads: 3, chunkSize: Infinity })
  let chunks = 0
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(createReadStream(file), {
      ...options,
      ...more,
      onError: reject,
      onSuccess: () => resolve(upload.url),
      onChunkComplete: () => {
        chunks += 1
        if (mode === 'killed' && chunks === 3) process.kill(process.pid, 'SIGKILL')
      },
    })
    if (mode !== 'resumed') return upload.start()
    upload.findPreviousUploads().then((found) => {
      upload.resumeFromPreviousUpload(found[0])
      upload.start()
    }, reject)
  })
}

const url = mode === 'uppy' ? await withUppy() : await withTus()
console.log(JSON.stringify({ url, job, firstOffset }))
