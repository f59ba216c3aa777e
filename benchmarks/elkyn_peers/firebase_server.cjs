// node firebase_server.cjs PORT: the npm package firebase-server, in memory, with its REST door.
const FirebaseServer = require('firebase-server')

new FirebaseServer({ port: Number(process.argv[2]), rest: true }, '127.0.0.1', {})
console.log('ready')
