'use client'

import { ChevronRight, FileUp } from 'lucide-react'
import { useEffect, useImperativeHandle, useRef, useState, type Ref } from 'react'

import { canPickFiles, droppedFiles, pickFiles, type PickedFile } from '@sennit/elytra'

import { startUpload, type IngestOptions } from '@/lib/uploads'

import { ReadingOptions } from './ReadingOptions'

export interface DropZoneHandle {
  /** Open the file chooser. */
  choose: () => void
}

/** Accepts files dropped anywhere on the page, or chosen in a dialog. */
export function DropZone({ ref, tall }: { ref?: Ref<DropZoneHandle>; tall: boolean }) {
  const input = useRef<HTMLInputElement>(null)
  const [over, setOver] = useState(false)
  const [open, setOpen] = useState(false)
  const [options, setOptions] = useState<IngestOptions>({})

  const addFiles = (files: Iterable<File | PickedFile>) => {
    for (const file of files) startUpload(file, options)
  }
  // With the File System Access API an upload goes on after a reload without choosing again.
  const choose = () => {
    if (!canPickFiles()) return input.current?.click()
    pickFiles({ multiple: true }).then(addFiles, () => input.current?.click())
  }
  useImperativeHandle(ref, () => ({ choose }))

  const latest = useRef(addFiles)
  useEffect(() => {
    latest.current = addFiles
  })

  useEffect(() => {
    let depth = 0
    const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false
    const enter = (event: DragEvent) => {
      if (!carriesFiles(event)) return
      depth += 1
      setOver(true)
    }
    const leave = () => {
      depth = Math.max(0, depth - 1)
      if (depth === 0) setOver(false)
    }
    const hover = (event: DragEvent) => carriesFiles(event) && event.preventDefault()
    const drop = (event: DragEvent) => {
      depth = 0
      setOver(false)
      if (!carriesFiles(event)) return
      event.preventDefault()
      if (event.dataTransfer)
        void droppedFiles(event.dataTransfer).then((files) => latest.current(files))
    }
    window.addEventListener('dragenter', enter)
    window.addEventListener('dragleave', leave)
    window.addEventListener('dragover', hover)
    window.addEventListener('drop', drop)
    return () => {
      window.removeEventListener('dragenter', enter)
      window.removeEventListener('dragleave', leave)
      window.removeEventListener('dragover', hover)
      window.removeEventListener('drop', drop)
    }
  }, [])

  const changed = Object.values(options).filter((value) => value !== undefined).length
  return (
    <section
      aria-label="Upload"
      className={`rounded-lg border border-dashed transition-colors ${over ? 'border-accent bg-accent-soft' : 'border-line-strong bg-surface'}`}
    >
      <input
        ref={input}
        type="file"
        multiple
        className="sr-only"
        tabIndex={-1}
        aria-label="Files to upload"
        onChange={(event) => {
          addFiles(event.target.files ?? [])
          event.target.value = ''
        }}
      />
      <button
        type="button"
        onClick={choose}
        className={`flex w-full flex-col items-center justify-center gap-1 rounded-lg px-4 text-center ${tall ? 'py-14' : 'py-6'}`}
      >
        <FileUp size={20} aria-hidden className={over ? 'text-accent' : 'text-ink-3'} />
        <span className="mt-1 font-semibold">
          {over ? 'Drop to upload' : 'Drop files here, or choose them'}
        </span>
        <span className="text-ink-2">
          CSV, TSV, Parquet, Arrow or JSON, compressed or not, of any size. A broken upload goes on
          where it stopped.
        </span>
      </button>
      <div className="border-line border-t border-dashed">
        <button
          type="button"
          aria-expanded={open}
          aria-controls="reading-options"
          onClick={() => setOpen(!open)}
          className="text-ink-2 hover:text-ink flex w-full items-center gap-1.5 px-4 py-2 text-xs font-medium -outline-offset-2"
        >
          <ChevronRight
            size={14}
            aria-hidden
            className={`transition-transform ${open ? 'rotate-90' : ''}`}
          />
          How files are read
          <span className="text-ink-3 font-normal">
            {changed > 0 ? `${changed} set by hand` : 'all detected'}
          </span>
        </button>
        {open && (
          <div id="reading-options" className="px-4 pb-4">
            <ReadingOptions options={options} onChange={setOptions} />
          </div>
        )}
      </div>
    </section>
  )
}
