"""emsqrt.sql_plan: SELECT statements to plans, through sqlglot's syntax trees (extra `sql`).

Layering: errors <- expressions, scope <- sources (FROM), windows (OVER) <- query (SELECT) <- reading.
"""

from emsqrt.sql_plan.reading import sql

__all__ = ["sql"]
