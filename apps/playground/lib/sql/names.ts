/** Names as SQL needs them written. */

// Words that DuckDB reserves; as a bare name each is a syntax error.
const RESERVED = new Set(
  (
    'all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default ' +
    'deferrable desc describe distinct do else end except false fetch for foreign from grant group having in initially ' +
    'intersect into lambda lateral leading limit not null offset on only or order pivot placing primary qualify ' +
    'references returning select show some summarize symmetric table then to trailing true union unique unpivot using ' +
    'variadic when where window with'
  ).split(' '),
)

/** The name itself where that is unambiguous, else in double quotes. */
export function quoteName(name: string): string {
  const plain = /^[a-z_][a-z0-9_]*$/.test(name) && !RESERVED.has(name)
  return plain ? name : `"${name.replaceAll('"', '""')}"`
}

/** The address of the SQL page with a query that shows the first rows of a table. */
export function firstRowsHref(table: string): string {
  return queryHref(`select *\nfrom ${quoteName(table)}\nlimit 100`)
}

/** The address of the SQL page with a query in its editor. */
export function queryHref(sql: string): string {
  return `/sql/?q=${encodeURIComponent(sql)}`
}
