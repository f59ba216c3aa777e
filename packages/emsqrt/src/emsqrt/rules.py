"""The planner's rules under their first name; they live in `emsqrt.planner`."""

from emsqrt.planner import RULES, Rule, find_schema, prune_columns, scan_of

__all__ = ["RULES", "Rule", "find_schema", "prune_columns", "scan_of"]
