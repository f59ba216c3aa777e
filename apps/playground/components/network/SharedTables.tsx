'use client'

import { Share2 } from 'lucide-react'
import { useState } from 'react'

import { SearchField } from '@/components/ui/SearchField'
import { Empty, Failed, Loading } from '@/components/ui/States'
import type { Resource } from '@/lib/hooks'
import type { NetworkReport } from '@/lib/network'
import { matches } from '@/lib/network'
import {
  accessOf,
  byNeed,
  copyHealth,
  handOverOf,
  lackersOf,
  readersOf,
  writerOf,
  type SharedDataset,
} from '@/lib/sharing'

import { ForkDialog } from './ForkDialog'
import { AcceptDialog, OfferDialog, UndoDialog } from './HandOverDialog'
import { SectionTitle } from './SectionTitle'
import { SharedRow, type RowDialog } from './SharedRow'
import { ShareDialog } from './ShareDialog'
import { UnshareDialog } from './UnshareDialog'

const SEARCHED_MIN = 8
/** What a browser renders at once; the search finds the others. */
const ROWS_MAX = 100

type Opened = {
  dialog: RowDialog
  dataset: SharedDataset | null
}

/** What is shared with whom, where copies are, and who lacks one. */
export function SharedTables({
  report,
  shared,
}: {
  report: NetworkReport
  shared: Resource<SharedDataset[]> & { reload: () => void }
}) {
  const [search, setSearch] = useState('')
  const [opened, setOpened] = useState<Opened | null>(null)
  const all = shared.state === 'ready' ? shared.data : []
  const found = byNeed(all).filter((each) => matches(textsOf(each), search))
  const close = () => setOpened(null)
  return (
    <section aria-labelledby="shared" className="min-w-0">
      <SectionTitle id="shared" title="Shared tables">
        {all.length >= SEARCHED_MIN && (
          <>
            <span role="status" className="text-ink-3 text-xs">
              {search.trim() !== '' && `${found.length} of ${all.length}`}
            </span>
            <SearchField label="Search shared tables" value={search} onChange={setSearch} />
          </>
        )}
        {report.mayWrite && (
          <button
            type="button"
            className="button button-small"
            onClick={() => setOpened({ dialog: 'share', dataset: null })}
          >
            <Share2 size={13} aria-hidden /> Share a table…
          </button>
        )}
      </SectionTitle>
      {shared.state === 'loading' && (
        <div className="panel">
          <Loading rows={4} label="Loading what is shared" />
        </div>
      )}
      {shared.state !== 'loading' && shared.error && (
        <div className={shared.state === 'ready' ? 'mb-3' : ''}>
          <Failed
            title="The node did not report what is shared"
            message={shared.error.message}
            hint={shared.error.hint}
            onRetry={shared.reload}
          />
        </div>
      )}
      {shared.state === 'ready' && all.length === 0 && (
        <div className="panel">
          <Empty title="Nothing is shared yet" icon={<Share2 size={22} aria-hidden />}>
            A table is private to its node until it is shared, with some nodes or with all.
          </Empty>
        </div>
      )}
      {all.length > 0 && (
        <div className="panel panel-long" role="group" aria-label="Shared tables" tabIndex={0}>
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Written by</th>
                <th scope="col">Shared with</th>
                <th scope="col">Copies</th>
                <th scope="col">On this node</th>
                <th scope="col">
                  <span className="sr-only">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {found.slice(0, ROWS_MAX).map((each) => (
                <SharedRow
                  key={each.dataset}
                  dataset={each}
                  report={report}
                  onOpen={(dialog) => setOpened({ dialog, dataset: each })}
                />
              ))}
              {found.length === 0 && (
                <tr>
                  <td colSpan={6} className="text-ink-2">
                    No table matches the search.
                  </td>
                </tr>
              )}
            </tbody>
          </table>
          {found.length > ROWS_MAX && (
            <p className="text-ink-2 px-5 py-2 text-xs">
              {found.length - ROWS_MAX} more: search for them.
            </p>
          )}
        </div>
      )}
      {opened?.dialog === 'share' && (
        <ShareDialog
          report={report}
          dataset={opened.dataset}
          shared={all}
          onClose={close}
          onDone={shared.reload}
        />
      )}
      {opened?.dialog === 'unshare' && opened.dataset && (
        <UnshareDialog dataset={opened.dataset} onClose={close} onDone={shared.reload} />
      )}
      {opened?.dialog === 'fork' && opened.dataset && (
        <ForkDialog dataset={opened.dataset} onClose={close} />
      )}
      {opened?.dialog === 'offer' && opened.dataset && (
        <OfferDialog
          dataset={opened.dataset}
          report={report}
          onClose={close}
          onDone={shared.reload}
        />
      )}
      {opened?.dialog === 'accept' && opened.dataset && (
        <AcceptDialog dataset={opened.dataset} onClose={close} onDone={shared.reload} />
      )}
      {opened?.dialog === 'undo' && opened.dataset && (
        <UndoDialog dataset={opened.dataset} onClose={close} onDone={shared.reload} />
      )}
    </section>
  )
}

function textsOf(each: SharedDataset): string[] {
  return [
    each.name,
    writerOf(each),
    each.writerRevoked ? 'removed' : '',
    handOverOf(each) ?? '',
    each.forkOf?.name ?? '',
    readersOf(each),
    accessOf(each),
    copyHealth(each).text,
    ...lackersOf(each),
  ]
}
