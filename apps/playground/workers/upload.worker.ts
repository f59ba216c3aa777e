/** An upload worker of this site; the work itself is the package's. */

import '@sennit/elytra/worker'
