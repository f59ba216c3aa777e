import { formatBytes } from '@/lib/format'
import { limitsOf, type StorageReport } from '@/lib/storage'

/** The quotas that are set: of everybody for admins, else the user's own. */
export function QuotaTable({ report }: { report: StorageReport }) {
  const quotas: { user: string; limits: string[]; stored: number | null }[] = (
    report.quotas?.map((quota) => ({ quota, stored: quota.storedBytes + quota.queuedBytes })) ??
    (report.quota ? [{ quota: report.quota, stored: null }] : [])
  )
    .map(({ quota, stored }) => ({
      user: quota.user,
      limits: limitsOf(quota, formatBytes),
      stored,
    }))
    .filter(({ limits }) => limits.length > 0)
  if (quotas.length === 0) return null
  return (
    <section aria-labelledby="quotas">
      <h2 id="quotas" className="eyebrow mb-2">
        Quotas
      </h2>
      <div className="panel overflow-x-auto" role="group" aria-label="Quotas" tabIndex={0}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">User</th>
              <th scope="col" className="number">
                Stored
              </th>
              <th scope="col">At most</th>
            </tr>
          </thead>
          <tbody>
            {quotas.map(({ user, limits, stored }) => (
              <tr key={user} className="hover:bg-hover">
                <td className="font-semibold">{user}</td>
                <td className="number">{stored === null ? '–' : formatBytes(stored)}</td>
                <td>{limits.join(' · ')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}
