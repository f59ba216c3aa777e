'use client'

/** Runs queries one at a time: a new one cancels the one before. */

import { useCallback, useRef, useState } from 'react'

import { api, asApiError, isAbort, type ApiError, type Engine, type SqlAnswer } from '@/lib/api'
import { remember } from '@/lib/sql/history'
import { errorRange, nameRange } from '@/lib/sql/position'

import type { EditorMark } from './Editor'

/** An answer with what it answers. */
export interface Answered {
  sql: string
  engine: Engine
  answer: SqlAnswer
  elapsedMs: number
}

/** `last` is the answer on screen while the next one is computed. */
export type QueryState =
  | { phase: 'idle' }
  | { phase: 'running'; startedMs: number; last: Answered | null }
  | { phase: 'done'; last: Answered }
  | { phase: 'failed'; sql: string; error: ApiError; elapsedMs: number }
  | { phase: 'cancelled'; elapsedMs: number }

export function useQuery() {
  const [state, setState] = useState<QueryState>({ phase: 'idle' })
  const [mark, setMark] = useState<EditorMark | null>(null)
  const control = useRef<AbortController | null>(null)

  const run = useCallback(async (sql: string, from: number, engine: Engine) => {
    control.current?.abort()
    const mine = new AbortController()
    control.current = mine
    const startedMs = Date.now()
    const elapsed = () => Date.now() - startedMs
    setMark(null)
    setState((before) => ({
      phase: 'running',
      startedMs,
      last: 'last' in before ? before.last : null,
    }))
    try {
      const answer = await api.query(sql, engine, mine.signal)
      const elapsedMs = elapsed()
      remember({
        sql,
        atMs: startedMs,
        elapsedMs,
        outcome: 'done',
        rows: answer.rows.length,
        truncated: answer.truncated,
      })
      if (control.current === mine)
        setState({ phase: 'done', last: { sql, engine, answer, elapsedMs } })
    } catch (reason) {
      const elapsedMs = elapsed()
      if (isAbort(reason)) {
        remember({ sql, atMs: startedMs, elapsedMs, outcome: 'cancelled', rows: null })
        if (control.current === mine) setState({ phase: 'cancelled', elapsedMs })
        return
      }
      const error = asApiError(reason)
      remember({
        sql,
        atMs: startedMs,
        elapsedMs,
        outcome: 'failed',
        rows: null,
        error: error.message,
      })
      if (control.current !== mine) return
      setState({ phase: 'failed', sql, error, elapsedMs })
      setMark(place(sql, from, error))
    } finally {
      if (control.current === mine) control.current = null
    }
  }, [])

  const cancel = useCallback(() => {
    if (!control.current) return false
    control.current.abort()
    return true
  }, [])

  return { state, mark, run, cancel }
}

function place(sql: string, from: number, error: ApiError): EditorMark | null {
  const named = typeof error.details.name === 'string' ? nameRange(sql, error.details.name) : null
  const range = errorRange(sql, error.details) ?? named
  return (
    range && {
      from: from + range.from,
      to: from + range.to,
      message: error.hint ? `${error.message} ${error.hint}` : error.message,
    }
  )
}
