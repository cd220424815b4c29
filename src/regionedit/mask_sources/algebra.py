"""Expressions over mask sources: `learned + sam - drawn`, `(learned & difference) + drawn`.

    expression = term { ("+" | "-") term }      a + b: either, the maximum     a - b: a without b, a (1 - b)
    term       = factor { "&" factor }          a & b: both, the minimum
    factor     = name | "(" expression ")"

`&` binds tighter than `+` and `-`, which associate to the left. Masks and probabilities use the same arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST = 50
"""Maximum nesting of brackets, safely below Python's recursion limit."""

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>[-+&()])|(?P<stray>\S))")
_BINDS = {"+": 0, "-": 0, "&": 1}


@dataclass(frozen=True)
class Name:
    """A mask source."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def evaluate(self, values: Mapping[str, Tensor]) -> Tensor:
        """The source's own map."""
        return values[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Operation:
    """Two expressions joined by a sign."""

    sign: Literal["+", "-", "&"]
    left: Expression
    right: Expression

    @property
    def names(self) -> tuple[str, ...]:
        """Every mask source, once, in order of appearance."""
        return tuple(dict.fromkeys(self.left.names + self.right.names))

    def evaluate(self, values: Mapping[str, Tensor]) -> Tensor:
        """The joined map.

        Args:
            values: for each name a map in [0, 1]; all have one shape.
        """
        left, right = self.left.evaluate(values), self.right.evaluate(values)
        if self.sign == "+":
            return left.maximum(right)
        if self.sign == "-":
            return left * (1 - right)
        return left.minimum(right)

    def __str__(self) -> str:
        """The expression with as few brackets as `parse` needs to read it back."""
        own = _BINDS[self.sign]
        left, right = str(self.left), str(self.right)
        if isinstance(self.left, Operation) and _BINDS[self.left.sign] < own:
            left = f"({left})"
        if isinstance(self.right, Operation) and _BINDS[self.right.sign] <= own:
            right = f"({right})"
        return f"{left} {self.sign} {right}"


Expression = Name | Operation


def parse(text: str) -> Expression:
    """Read an expression; its names are not checked.

    Raises:
        ValueError: not an expression; the message gives the position, counted from 1.
    """
    return _Reader(text).read()


class _Reader:
    """Recursive descent parser: one method for each rule of the grammar."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = [(m.lastgroup, m[m.lastgroup], m.start(m.lastgroup)) for m in _TOKEN.finditer(text)]
        self.place = 0

    def read(self) -> Expression:
        result = self.expression(0)
        if self.place < len(self.tokens):
            self.fail("+, - or &")
        return result

    def expression(self, depth: int) -> Expression:
        left = self.term(depth)
        while sign := self.accept("+", "-"):
            left = Operation(sign, left, self.term(depth))
        return left

    def term(self, depth: int) -> Expression:
        left = self.factor(depth)
        while sign := self.accept("&"):
            left = Operation(sign, left, self.factor(depth))
        return left

    def factor(self, depth: int) -> Expression:
        if self.place < len(self.tokens) and self.tokens[self.place][0] == "name":
            self.place += 1
            return Name(self.tokens[self.place - 1][1])
        if not self.accept("("):
            self.fail("the name of a mask source or (")
        if depth == DEEPEST:
            raise ValueError(f"mask_source: more than {DEEPEST} brackets in brackets")
        inner = self.expression(depth + 1)
        if not self.accept(")"):
            self.fail(")")
        return inner

    def accept(self, *signs: str) -> str | None:
        """Consume the next token and return it if it is one of these, else None."""
        if self.place == len(self.tokens) or self.tokens[self.place][1] not in signs:
            return None
        self.place += 1
        return self.tokens[self.place - 1][1]

    def fail(self, wanted: str) -> None:
        where = "at the end"
        if self.place < len(self.tokens):
            _, found, start = self.tokens[self.place]
            where = f"at character {start + 1}, before {found!r}"
        raise ValueError(
            f"mask_source: {self.text!r}: {wanted} is missing {where}; write for example 'learned + sam - drawn'"
        )
