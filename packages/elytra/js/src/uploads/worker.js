// The entry of the upload worker. It is JavaScript so that `new URL('./worker.js', import.meta.url)`
// finds it in the sources as in the built package.
import './sending.ts'
