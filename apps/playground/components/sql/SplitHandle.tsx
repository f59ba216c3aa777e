'use client'

import type { KeyboardEvent, PointerEvent } from 'react'

const MIN_PX = 120
const STEP_PX = 24

/** The line between editor and answer; drag it, or move it with the arrow keys. */
export function SplitHandle({ size, onSize }: { size: number; onSize: (size: number) => void }) {
  const max = () => Math.max(MIN_PX, window.innerHeight - 240)
  const set = (next: number) => onSize(Math.round(Math.max(MIN_PX, Math.min(next, max()))))

  const drag = (event: PointerEvent<HTMLDivElement>) => {
    const handle = event.currentTarget
    const origin = event.clientY - size
    handle.setPointerCapture(event.pointerId)
    const move = (to: globalThis.PointerEvent) => set(to.clientY - origin)
    handle.addEventListener('pointermove', move)
    handle.addEventListener(
      'lostpointercapture',
      () => handle.removeEventListener('pointermove', move),
      { once: true },
    )
  }

  const press = (event: KeyboardEvent) => {
    if (event.key === 'ArrowUp') set(size - STEP_PX)
    else if (event.key === 'ArrowDown') set(size + STEP_PX)
    else return
    event.preventDefault()
  }

  return (
    <div
      role="separator"
      tabIndex={0}
      aria-label="Height of the editor"
      aria-orientation="horizontal"
      aria-valuemin={MIN_PX}
      aria-valuenow={size}
      onPointerDown={drag}
      onKeyDown={press}
      className="border-line bg-ground hover:bg-accent-soft focus-visible:bg-accent-soft h-1.5 shrink-0 cursor-row-resize touch-none border-y -outline-offset-2"
    />
  )
}
