"""Metric math, as far as alarms of the local cloud use it: arithmetic, comparisons, AND, OR, IF and FILL."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Value = float | None  # None: there is no data point
ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
WORDS = {"AND": " and ", "&&": " and ", "OR": " or ", "||": " or ", "^": "**", "IF": "if_"}


class UnknownExpressionError(ValueError):
    """The expression uses something that is not understood here."""


def evaluate(expression: str, figures: Mapping[str, Value]) -> Value:
    """The expression's value in one period, by the figures' names. A figure without a data point makes the result one,
    except in FILL, and so does a division by zero. Raises UnknownExpressionError."""
    python = re.sub(r"\bAND\b|\bOR\b|\bIF\b|&&|\|\||\^", lambda found: WORDS[found[0]], expression)
    try:
        return _value(ast.parse(python.strip(), mode="eval").body, figures)
    except (SyntaxError, KeyError, TypeError) as error:
        raise UnknownExpressionError(f"not understood here: {expression}") from error
    except ZeroDivisionError:
        return None


def _value(node: ast.AST, figures: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Constant | ast.Name):
        return figures[node.id] if isinstance(node, ast.Name) else float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp):
        return _apply(ARITHMETIC[type(node.op)], node.left, node.right, figures)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _apply(ARITHMETIC[type(node.ops[0])], node.left, node.comparators[0], figures)
    if isinstance(node, ast.BoolOp):
        values = [_value(each, figures) for each in node.values]
        return None if None in values else float((all if isinstance(node.op, ast.And) else any)(values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _function(node.func.id, node.args, figures)
    raise KeyError(type(node).__name__)


def _apply(act: Callable[[Any, Any], Any], left: ast.AST, right: ast.AST, figures: Mapping[str, Value]) -> Value:
    one, two = _value(left, figures), _value(right, figures)
    return None if one is None or two is None else float(act(one, two))


def _function(name: str, arguments: list[ast.expr], figures: Mapping[str, Value]) -> Value:
    first, *rest = (_value(each, figures) for each in arguments)
    if name == "if_" and len(rest) == 2:
        return None if first is None else rest[0] if first else rest[1]
    if name == "FILL" and len(rest) == 1:
        return rest[0] if first is None else first
    raise KeyError(name)
