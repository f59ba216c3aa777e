/** The compute worker's side of frames: it asks for them, and talks to each through a port. */

import type { FromSandbox } from '../sandbox/messages.ts'
import type { OpenSandbox, SandboxPort } from '../sandbox/sandbox.ts'
import type { FromCompute } from './channel.ts'

export class Frames {
  private last = 0
  /** By the id of a frame that was asked for: hears of its port. */
  private readonly asked = new Map<number, (port: MessagePort | null) => void>()

  constructor(private readonly post: (message: FromCompute) => void) {}

  /** What starts the sandboxes of a task. */
  openFor(ticket: number): OpenSandbox {
    return (code, { outputBytesMax }, receive) => {
      const id = (this.last += 1)
      const port = this.portOf(id, receive)
      this.post({ kind: 'frame', ticket, id, code, outputBytesMax })
      return port
    }
  }

  /** A frame was opened, or there is none. */
  opened(id: number, port: MessagePort | null): void {
    this.asked.get(id)?.(port)
    this.asked.delete(id)
  }

  private portOf(id: number, receive: (message: FromSandbox) => void): SandboxPort {
    let port: MessagePort | null = null
    this.asked.set(id, (opened) => {
      port = opened
      if (opened) opened.onmessage = ({ data }: MessageEvent<FromSandbox>) => receive(data)
      else receive({ kind: 'ended', code: 'worker-lost', reason: 'there is no frame' })
    })
    return {
      post: (message, buffers) => port?.postMessage(message, buffers),
      close: () => {
        this.asked.delete(id)
        port?.close()
        this.post({ kind: 'frame-end', id })
      },
    }
  }
}
