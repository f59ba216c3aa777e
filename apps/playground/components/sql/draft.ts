/** The text of the editor outlives the page. */

const KEY = 'sennit.sql.draft'

export function readDraft(): string {
  try {
    return localStorage.getItem(KEY) ?? ''
  } catch {
    return ''
  }
}

export function writeDraft(text: string): void {
  try {
    localStorage.setItem(KEY, text)
  } catch {
    // Storage is full or refused: the draft then lasts as long as the page.
  }
}
