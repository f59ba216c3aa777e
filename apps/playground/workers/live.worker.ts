/** The shared worker that holds the one set of live streams of a browser, however many tabs are open. */

import '@sennit/elkyn/live/worker'
