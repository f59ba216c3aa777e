import { Meter } from '@/components/ui/Bar'
import { formatBytes, plural } from '@/lib/format'
import type { StorageReport } from '@/lib/storage'

/** The sums: what is stored, what can go, and the room that is left. */
export function DiskCard({ report }: { report: StorageReport }) {
  const { disk, objects } = report
  const room = disk ? (disk.quotaBytes ?? disk.objectBytes + disk.freeBytes) : 0
  return (
    <section aria-label="Sums" className="panel px-5 py-4">
      <dl className="flex flex-wrap gap-x-10 gap-y-3">
        <Figure name="Tables, all versions" value={formatBytes(report.storedBytes)} />
        <Figure
          name="Only for old versions"
          value={formatBytes(report.reclaimableBytes)}
          note="given back when they expire"
        />
        {report.sharedBytes !== undefined && report.sharedBytes > 0 && (
          <Figure
            name="Shared"
            value={formatBytes(report.sharedBytes)}
            note="equal shards are stored once"
          />
        )}
        {objects && (
          <Figure
            name="Manifests and others"
            value={formatBytes(objects.others.bytes)}
            note={plural(objects.others.objects, 'object')}
          />
        )}
        {disk && <Figure name="Free on the disk" value={formatBytes(disk.freeBytes)} />}
      </dl>
      {disk && (
        <div className="mt-4">
          <Meter
            label="Stored, of the room there is"
            value={disk.objectBytes}
            max={room}
            text={`${formatBytes(disk.objectBytes)} of ${formatBytes(room)}`}
          />
          <p className="text-ink-2 mt-1.5 text-xs">
            {plural(disk.objects, 'object')}, {formatBytes(disk.objectBytes)}, of{' '}
            {disk.quotaBytes === null
              ? `${formatBytes(room)} that the disk has room for`
              : `the quota of ${formatBytes(room)}`}
            {objects &&
              objects.retired > 0 &&
              ` · ${plural(objects.retired, 'object')} about to go`}
          </p>
          {objects && objects.quarantined > 0 && (
            <p className="text-bad mt-1 text-xs font-semibold">
              {plural(objects.quarantined, 'object')} damaged and in quarantine: `platform verify`
              names the tables.
            </p>
          )}
        </div>
      )}
    </section>
  )
}

function Figure({ name, value, note }: { name: string; value: string; note?: string }) {
  return (
    <div>
      <dt className="text-ink-2 text-xs">{name}</dt>
      <dd className="text-xl font-semibold tracking-tight">{value}</dd>
      {note && <dd className="text-ink-3 text-xs">{note}</dd>}
    </div>
  )
}
