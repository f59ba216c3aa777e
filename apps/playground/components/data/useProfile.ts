'use client'

import { useCallback, useEffect, useRef, useState } from 'react'

import { api } from '@/lib/api'
import { NO_PROFILE, profileColumns, type ProfiledColumn, type ProfileState } from '@/lib/profile'
import type { DatasetInfo } from '@/lib/records'

/** The profile of a table as far as it is; starting again goes on with the columns that lack one. */
export function useProfile(dataset: DatasetInfo, columns: readonly ProfiledColumn[]) {
  const key = `${dataset.id} ${dataset.head}`
  const [profile, setProfile] = useState<{ key: string; value: ProfileState }>({
    key,
    value: NO_PROFILE,
  })
  const running = useRef<AbortController | null>(null)
  const value = profile.key === key ? profile.value : NO_PROFILE

  const cancel = useCallback(() => running.current?.abort(), [])
  // Leaving the page, or new data in the table, ends a profile.
  useEffect(() => cancel, [cancel, key])

  const start = () => {
    cancel()
    const control = (running.current = new AbortController())
    void profileColumns(
      { name: dataset.name, rows: dataset.rows, columns },
      value.columns,
      (sql, deadlineSeconds) => api.query(sql, 'auto', control.signal, deadlineSeconds),
      (state) => running.current === control && setProfile({ key, value: state }),
    )
  }
  return { ...value, start, cancel }
}
