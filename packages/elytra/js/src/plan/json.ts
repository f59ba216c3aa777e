/** Plans as JSON: the form that `emsqrt/plan/schema.json` of the node defines, version 1. */

import type { Limits } from '../sandbox/messages.ts'

export type ExprJson =
  | { col: string }
  | { lit: string | boolean | null; type?: string }
  | { fn: string; args: ExprJson[] }
  | { cast: ExprJson; type: string; strict?: false }
  | { case: { when: ExprJson; then: ExprJson }[]; else?: ExprJson }
  | AggJson

export interface AggJson {
  agg: string
  arg?: ExprJson
  distinct?: true
  params?: ExprJson[]
}

export interface NamedExpr {
  name: string
  expr: ExprJson
}

export interface SortKeyJson {
  expr: ExprJson
  descending?: true
  nullsFirst?: true
}

export type JoinKind = 'inner' | 'left' | 'right' | 'full' | 'semi' | 'anti' | 'cross'

export interface SourceJson {
  dataset: string
  snapshot?: string
  version?: number | string
  timestamp?: string
}

export interface FrameJson {
  unit: 'rows' | 'range'
  start?: number
  end?: number
}

export interface WindowCallJson {
  window: string
  arg?: ExprJson
  params?: ExprJson[]
  frame?: FrameJson
}

/**
 * A step whose function is called with rows, as an engine runs it. It is in no plan: `Elytra.file` runs it
 * in this page or process, and plans for nodes have a `JavascriptNode` in its place.
 */
export interface OpaqueNode {
  op: 'opaque'
  input: PlanNode
  verb: 'map' | 'filter' | 'reduce'
  fn: { readonly text: string; readonly scope: object; readonly limits: Limits }
  /** How the function receives a row. */
  shape: 'row' | 'tuple' | 'value'
  outputs: { name: string; type: string }[]
  returnsValue: boolean
  /** Of a reduce. */
  initial: unknown
  /** What errors call the step. */
  label: string
}

/** A function in the plan of a node, which sends it to tabs whose owners run functions of others. */
export interface JavascriptNode {
  op: 'custom'
  inputs: PlanNode[]
  name: string
  options: {
    verb: 'map' | 'filter'
    /** An expression whose value is the function. */
    program: string
    label: string
    shape: OpaqueNode['shape']
    returnsValue: boolean
  }
  /** Of what a map returns. */
  schema?: { fields: { name: string; type: string; nullable: boolean }[] }
}

/** One operator with everything below it. */
export type PlanNode =
  | OpaqueNode
  | JavascriptNode
  | { op: 'scan'; source: SourceJson; columns?: string[] }
  | { op: 'filter'; input: PlanNode; predicate: ExprJson }
  | { op: 'project'; input: PlanNode; columns: NamedExpr[] }
  | { op: 'with_column'; input: PlanNode; columns: NamedExpr[] }
  | { op: 'rename'; input: PlanNode; names: { from: string; to: string }[] }
  | {
      op: 'aggregate'
      input: PlanNode
      keys: NamedExpr[]
      aggs: { name: string; agg: AggJson }[]
      /** Of a node's tasks: states in place of values. */
      phase?: 'partial' | 'final'
    }
  | { op: 'limit'; input: PlanNode; count: number; offset?: number }
  | { op: 'sort'; input: PlanNode; keys: SortKeyJson[] }
  | { op: 'top_k'; input: PlanNode; keys: SortKeyJson[]; count: number; offset?: number }
  | { op: 'distinct'; input: PlanNode; columns?: string[] }
  | {
      op: 'join'
      left: PlanNode
      right: PlanNode
      how?: JoinKind
      on?: { left: string; right: string }[]
      suffix?: string
    }
  | { op: 'union'; inputs: PlanNode[]; byName?: true }
  | {
      op: 'explode'
      input: PlanNode
      column: string
      outer?: true
      as?: string
      position?: string
    }
  | { op: 'sample'; input: PlanNode; fraction?: string; count?: number; seed?: number }
  | { op: 'expect'; input: PlanNode; unique?: string[]; notNull?: string[]; rows?: string }
  | {
      op: 'window'
      input: PlanNode
      partitionBy?: ExprJson[]
      orderBy?: SortKeyJson[]
      functions: { name: string; call: WindowCallJson }[]
    }

/** A whole plan, as a job takes it. */
export type PlanJson = PlanNode & { v: 1 }
