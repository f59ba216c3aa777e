// The entry of the compute worker. It is JavaScript so that `new URL('./computeWorker.js',
// import.meta.url)` finds it in the sources as in the built package.
import './computeEntry.ts'
