'use client'

import { Dialog } from '@/components/ui/Dialog'
import { modName, PAGES } from '@/lib/keyboard'

/** Every key of the site. */
export function KeyHelp({ onClose }: { onClose: () => void }) {
  const mod = modName()
  const groups: [string, [string[], string][]][] = [
    [
      'Everywhere',
      [
        ...PAGES.map(({ key, label }): [string[], string] => [['g', key], `Go to ${label}`]),
        [['?'], 'This help'],
      ],
    ],
    [
      'SQL editor',
      [
        [[mod, 'Enter'], 'Run the statement at the cursor, or the selection'],
        [['Esc'], 'Cancel the running query'],
        [[mod, 'Space'], 'Complete a name'],
        [['Tab'], 'Accept a completion, else leave the editor'],
      ],
    ],
    [
      'Result grid',
      [
        [['←', '↑', '↓', '→'], 'Move; with Shift, select'],
        [['PgUp', 'PgDn'], 'A screen up or down'],
        [['Home', 'End'], `First or last column; with ${mod}, corner`],
        [[mod, 'C'], 'Copy the cell or the selection'],
        [[mod, 'A'], 'Select everything'],
      ],
    ],
  ]
  return (
    <Dialog title="Keyboard" onClose={onClose} wide>
      <div className="gap-x-10 pt-2 sm:columns-2">
        {groups.map(([title, keys]) => (
          <section key={title} className="mb-5 break-inside-avoid">
            <h3 className="eyebrow mb-2">{title}</h3>
            <dl className="flex flex-col gap-2">
              {keys.map(([combination, what]) => (
                <div key={what} className="flex items-baseline gap-3">
                  <dt className="flex w-28 shrink-0 gap-1">
                    {combination.map((key) => (
                      <kbd key={key} className="kbd">
                        {key}
                      </kbd>
                    ))}
                  </dt>
                  <dd className="text-ink-2">{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  )
}
