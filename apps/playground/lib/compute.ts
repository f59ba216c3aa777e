'use client'

/** This tab as a worker of the node: one for all pages of the app, until the tab is closed. */

import { TabWorker, type WorkerControls, type WorkerState } from '@sennit/elytra'

import { asApiError, type ApiError } from './api'
import {
  controlsOf,
  DEFAULT_RULES,
  mayJoinAgain,
  pauseReason,
  readRules,
  type ComputeRules,
  type Surroundings,
} from './computeRules'
import { Store } from './store'
import { workersApi } from './workers'

const RULES_KEY = 'sennit.compute.rules'
const CONSENT_KEY = 'sennit.compute.consent'
/** Of the text that the user accepts: another text asks again. */
const CONSENT_VERSION = '2'
const FUNCTIONS_KEY = 'sennit.compute.functions'
/** Of the text about functions of others. */
const FUNCTIONS_VERSION = '1'

/** What the page shows of this tab. */
export interface Computing {
  rules: ComputeRules
  hasConsent: boolean
  /** Whether functions of others are run. */
  runsFunctions: boolean
  isJoining: boolean
  /** Of the worker that runs, or ran last; null before the first. */
  worker: WorkerState | null
  isPausedByHand: boolean
  error: ApiError | null
}

export const computing = new Store<Computing>({
  rules: DEFAULT_RULES,
  hasConsent: false,
  runsFunctions: false,
  isJoining: false,
  worker: null,
  isPausedByHand: false,
  error: null,
})

const around: Surroundings = { isHidden: false, isOnBattery: null, isMetered: null }
let worker: TabWorker | null = null
let joinedAt = 0
let isOpen = false

/** Read what was chosen before, and follow the tab's surroundings; more than once does no harm. */
export function openComputing(): void {
  if (isOpen) return
  isOpen = true
  change({
    rules: readRules(stored(RULES_KEY)),
    hasConsent: stored(CONSENT_KEY) === CONSENT_VERSION,
    runsFunctions: stored(FUNCTIONS_KEY) === FUNCTIONS_VERSION,
  })
  document.addEventListener('visibilitychange', () => noteAround({ isHidden: document.hidden }))
  noteAround({ isHidden: document.hidden })
  followConnection()
  void followBattery()
}

/** Accept what is said about computing for the node. */
export function consent(): void {
  store(CONSENT_KEY, CONSENT_VERSION)
  change({ hasConsent: true })
}

/** Run functions of others in this tab, or stop those that run. */
export function allowFunctions(runsFunctions: boolean): void {
  store(FUNCTIONS_KEY, runsFunctions ? FUNCTIONS_VERSION : '')
  change({ runsFunctions })
  worker?.set(controls())
}

/** Become a worker of the node; without consent nothing happens. */
export async function join(): Promise<void> {
  const { hasConsent, isJoining } = computing.get()
  if (!hasConsent || isJoining || worker) return
  change({ isJoining: true, error: null, isPausedByHand: false })
  try {
    const { token } = await workersApi.join()
    joinedAt = Date.now()
    worker = new TabWorker({ token, controls: controls(), onChange: noteWorker })
    change({ isJoining: false, worker: worker.state })
  } catch (reason) {
    change({ isJoining: false, error: asApiError(reason) })
  }
}

/** Finish the tasks that are here, and disconnect. */
export function leave(): void {
  worker?.drain()
}

export function pauseByHand(isPausedByHand: boolean): void {
  change({ isPausedByHand })
  worker?.set(controls())
}

export function setRules(rules: ComputeRules): void {
  store(RULES_KEY, JSON.stringify(rules))
  change({ rules })
  worker?.set(controls())
}

function controls(): WorkerControls {
  const { rules, isPausedByHand, runsFunctions } = computing.get()
  const paused = pauseReason(rules, around, isPausedByHand)
  return { ...controlsOf(rules), paused, functions: runsFunctions }
}

function noteWorker(state: WorkerState): void {
  change({ worker: state })
  if (state.ended === null) return
  worker = null
  if (mayJoinAgain(state.ended, joinedAt, Date.now())) void join()
}

function noteAround(news: Partial<Surroundings>): void {
  Object.assign(around, news)
  worker?.set(controls())
}

/** Browsers that report it: Chromium. */
interface NetworkInformation extends EventTarget {
  saveData?: boolean
  type?: string
}

function followConnection(): void {
  const { connection } = navigator as Navigator & { connection?: NetworkInformation }
  if (!connection) return
  const note = (): void =>
    noteAround({ isMetered: connection.saveData === true || connection.type === 'cellular' })
  connection.addEventListener('change', note)
  note()
}

interface BatteryManager extends EventTarget {
  charging: boolean
}

async function followBattery(): Promise<void> {
  const known = navigator as Navigator & { getBattery?: () => Promise<BatteryManager> }
  const battery = await known.getBattery?.().catch(() => null)
  if (!battery) return
  const note = (): void => noteAround({ isOnBattery: !battery.charging })
  battery.addEventListener('chargingchange', note)
  note()
}

function change(news: Partial<Computing>): void {
  computing.set({ ...computing.get(), ...news })
}

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    return null
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // Storage is refused: the choice then lasts as long as the page.
  }
}
