"""Security rules of a tree, in Firebase's rules language.

Modules: `document`, `lexer`, `parser`, `regex` parse text; `checker` checks types; `compiler` makes
closures over `snapshots` and `operators`; `build` arranges them in a `trie` by path; `ruleset`
evaluates them, `trace` explains decisions, `files` serves the command line.
"""

from elkyn.rules.problems import BadRules, Problem
from elkyn.rules.read_set import ReadSet
from elkyn.rules.ruleset import DEFAULT_RULES, RuleSet, default_rules, parse_rules
from elkyn.rules.trace import Decision, Explanation

__all__ = [
    "DEFAULT_RULES",
    "BadRules",
    "Decision",
    "Explanation",
    "Problem",
    "ReadSet",
    "RuleSet",
    "default_rules",
    "parse_rules",
]
