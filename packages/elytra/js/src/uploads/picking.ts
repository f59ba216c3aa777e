/** Files that the user chose or dropped, with their handles in browsers that have such. */

/** A file to upload, and where it is if the browser says so. */
export interface PickedFile {
  file: File
  /** Survives a reload in IndexedDB; null if the browser has no File System Access API. */
  handle: FileSystemFileHandle | null
}

interface HandleSource {
  getAsFileSystemHandle?: () => Promise<FileSystemHandle | null>
}
interface PickerWindow {
  showOpenFilePicker?: (options?: { multiple?: boolean }) => Promise<FileSystemFileHandle[]>
}

/** Whether `pickFiles` works here: browsers with the File System Access API, on secure origins. */
export function canPickFiles(): boolean {
  return typeof (globalThis as PickerWindow).showOpenFilePicker === 'function'
}

/** Let the user choose files; empty if they choose none. Call it in the handler of a click. */
export async function pickFiles(options: { multiple?: boolean } = {}): Promise<PickedFile[]> {
  try {
    const handles = await (globalThis as PickerWindow).showOpenFilePicker!(options)
    return await Promise.all(
      handles.map(async (handle) => ({ file: await handle.getFile(), handle })),
    )
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return []
    throw error
  }
}

/** The files of a drop. Call it in the event's handler: the items are gone once that returns. */
export async function droppedFiles(transfer: DataTransfer): Promise<PickedFile[]> {
  const items = [...transfer.items].filter((item) => item.kind === 'file')
  const found = items.map(async (item): Promise<PickedFile | null> => {
    const file = item.getAsFile()
    const asked = (item as HandleSource).getAsFileSystemHandle?.()
    // Without a handle the upload goes on after a reload once the file is chosen again.
    const handle = await Promise.resolve(asked).catch(() => null)
    if (handle?.kind === 'directory' || file === null) return null
    return { file, handle: (handle as FileSystemFileHandle | null | undefined) ?? null }
  })
  return (await Promise.all(found)).filter((each) => each !== null)
}
