"""Rules: who may read and write what in a tree, in Firebase's rules language.

Layering: `document`, `lexer`, `parser`, `regex` read text; `checker` refuses what can never work;
`compiler` makes closures over `snapshots` and `operators`; `build` puts them into a `trie` by place;
`ruleset` asks them, `trace` explains the answer, `files` serves the command line.
"""

from elkyn.rules.footprint import ReadSet
from elkyn.rules.problems import BadRules, Problem
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
