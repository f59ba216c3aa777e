"""Parser of rule expressions: a subset of JavaScript's expressions.

`parse` is a precedence parser. It limits depth, so that no later pass can overflow the stack: brackets
and conditionals nest up to `NESTING_MAX` deep, and a tree's height is at most `HEIGHT_MAX`.
"""

from __future__ import annotations

from elkyn.rules.lexer import Lexer, Token
from elkyn.rules.nodes import (
    Binary,
    Call,
    Conditional,
    Items,
    Literal,
    Logical,
    Member,
    Name,
    Node,
    Regex,
    Unary,
)
from elkyn.rules.problems import ExpressionError

__all__ = ["parse"]

CHARACTERS_MAX = 1 << 16
# Of brackets and conditionals, which recurse here; the height bounds later passes over the tree.
NESTING_MAX = 40
HEIGHT_MAX = 80

_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    "===": 3,
    "!==": 3,
    "==": 3,
    "!=": 3,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
_STRICT = {"==": "===", "!=": "!=="}
_WORDS = {"true": True, "false": False, "null": None}


def parse(text: str) -> Node:
    """Parse `text` as one expression.

    Raises:
        ExpressionError: `text` is not an expression, too long or too deep.
    """
    if len(text) > CHARACTERS_MAX:
        raise ExpressionError(f"longer than {CHARACTERS_MAX} characters", 0)
    parser = _Parser(text)
    node = parser.expression()
    if parser.token.kind != "end":
        raise ExpressionError(f"unexpected {_shown(parser.token)} after the expression", parser.at)
    return node


class _Parser:
    def __init__(self, text: str) -> None:
        self.lexer = Lexer(text)
        self.token = self.lexer.next()
        self.nesting = 0

    @property
    def at(self) -> int:
        return self.token.at

    def _advance(self) -> Token:
        token = self.token
        self.token = self.lexer.next()
        return token

    def _expect(self, mark: str, why: str) -> Token:
        if self.token.kind != mark:
            raise ExpressionError(f"expected {mark!r} {why}, found {_shown(self.token)}", self.at)
        return self._advance()

    def expression(self) -> Node:
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            raise ExpressionError(f"nested more than {NESTING_MAX} levels deep", self.at)
        test = self._operators(1)
        if self.token.kind == "?":
            self._advance()
            yes = self.expression()
            self._expect(":", "between the branches of ?")
            no = self.expression()
            test = Conditional(test.at, no.end, test, yes, no, depth=_above(test, yes, no))
        self.nesting -= 1
        return test

    def _operators(self, lowest: int) -> Node:
        left = self._unary()
        while (precedence := _PRECEDENCE.get(self.token.kind, 0)) >= lowest:
            operator = self._advance().kind
            # Precedence climbing: an operator of the same precedence ends the right side, so all
            # are left-associative.
            right = self._operators(precedence + 1)
            left = _joined(_STRICT.get(operator, operator), left, right)
        return left

    def _unary(self) -> Node:
        operators: list[Token] = []
        while self.token.kind in ("!", "-"):
            operators.append(self._advance())
        node = self._postfix()
        for operator in reversed(operators):
            node = Unary(operator.at, node.end, operator.kind, node, depth=_above(node))
        return node

    def _postfix(self) -> Node:
        node = self._primary()
        while True:
            mark = self.token.kind
            if mark == ".":
                self._advance()
                name = self._expect("name", "after the dot")
                node = Member(node.at, name.end, node, name.value, None, depth=_above(node))
            elif mark == "[":
                node = self._computed(node)
            elif mark == "(":
                self._advance()
                arguments, end = self._list(")")
                depth = _above(node, *arguments)
                node = Call(node.at, end, node, arguments, depth=depth)
            else:
                return node

    def _computed(self, owner: Node) -> Node:
        self._advance()
        inner = self.expression()
        end = self._expect("]", "after the name of a property").end
        if isinstance(inner, Literal) and isinstance(inner.value, str):
            return Member(owner.at, end, owner, inner.value, None, depth=_above(owner))
        return Member(owner.at, end, owner, None, inner, depth=_above(owner, inner))

    def _list(self, closing: str) -> tuple[list[Node], int]:
        items: list[Node] = []
        while self.token.kind != closing:
            if items:
                self._expect(",", f"or {closing!r} in a list")
            items.append(self.expression())
        return items, self._advance().end

    def _primary(self) -> Node:
        token = self.token
        if token.kind == "/":
            return self._regex()
        self._advance()
        if token.kind in ("number", "string"):
            return Literal(token.at, token.end, token.value)
        if token.kind == "name":
            if token.value in _WORDS:
                return Literal(token.at, token.end, _WORDS[token.value])
            return Name(token.at, token.end, token.value)
        if token.kind == "(":
            node = self.expression()
            self._expect(")", "to close the bracket")
            return node
        if token.kind == "[":
            items, end = self._list("]")
            return Items(token.at, end, items, depth=_above(*items))
        raise ExpressionError(f"expected an expression, found {_shown(token)}", token.at)

    def _regex(self) -> Node:
        at = self.at
        pattern, flags, end = self.lexer.regex(at)
        self.token = self.lexer.next()
        return Regex(at, end, pattern, flags, at + 1)


def _joined(operator: str, left: Node, right: Node) -> Node:
    if operator not in ("&&", "||"):
        return Binary(left.at, right.end, operator, left, right, depth=_above(left, right))
    # Chains of one operator are one node: a long list of conditions stays flat.
    if isinstance(left, Logical) and left.operator == operator:
        left.operands.append(right)
        left.end, left.depth = right.end, max(left.depth, _above(right))
        return left
    return Logical(left.at, right.end, operator, [left, right], depth=_above(left, right))


def _above(*nodes: Node) -> int:
    depth = 1 + max((node.depth for node in nodes), default=0)
    if depth > HEIGHT_MAX:
        raise ExpressionError(f"more than {HEIGHT_MAX} nested operations", nodes[0].at)
    return depth


def _shown(token: Token) -> str:
    return "the end" if token.kind == "end" else repr(str(token.value)[:40])
