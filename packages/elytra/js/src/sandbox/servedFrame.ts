/** Frames of a page for functions: without a code of its own, as the page's policy may forbid inline scripts. */

/** A frame with an origin of its own, that is not shown. */
export function hiddenFrame(): HTMLIFrameElement {
  const element = document.createElement('iframe')
  element.setAttribute('sandbox', 'allow-scripts')
  element.setAttribute('aria-hidden', 'true')
  element.tabIndex = -1
  element.style.display = 'none'
  return element
}

/** A frame that calls a function, and the port to it. */
export interface ServedFrame {
  port: MessagePort
  /** Remove the frame, which ends its worker, also one in an endless loop. */
  close(): void
}

/**
 * Open a frame whose document the node serves with a policy of its own: a document in an attribute would
 * inherit the page's, which allows no inline script.
 *
 * @param src the document: the script `frame` of `guest.ts`.
 * @param code of `workerCode`.
 */
export function openServedFrame(src: string, code: string, outputBytesMax: number): ServedFrame {
  const element = hiddenFrame()
  const { port1, port2 } = new MessageChannel()
  element.onload = () => {
    element.onload = null // a document that follows this one gets no port
    // An opaque origin has no name to send to.
    element.contentWindow?.postMessage({ code, outputBytesMax }, '*', [port2])
  }
  element.src = src
  document.documentElement.append(element)
  return { port: port1, close: () => element.remove() }
}
