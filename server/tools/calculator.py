"""Arithmetic with simpleeval: no `eval`, only the names below, and only numbers of bounded size."""

import ast
import math
import operator
import re
from collections.abc import Callable

from langchain_core.tools import ToolException, tool
from simpleeval import FunctionNotDefined, InvalidExpression, NameNotDefined, SimpleEval

Number = int | float

MAX_LENGTH = 500  # characters of an expression
MAX_BITS = 3400  # of a whole number: about a thousand digits

SIGNS = str.maketrans({"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-", "^": "**"})
THOUSANDS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(,\d{3})+(?![\w,])")  # 1,234 but neither 0,123 nor 12,34


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    if len(expression) > MAX_LENGTH:
        raise ToolException(
            f"The expression has {len(expression)} characters; at most {MAX_LENGTH} can be worked out."
        )
    try:
        return _written(_evaluate(_as_python(expression)))
    except (OverflowError, ZeroDivisionError, RecursionError, TypeError, ValueError) as error:
        reasons = {OverflowError: "a number in it grows too large", RecursionError: "it is nested too deeply"}
        raise ToolException(f"Cannot work out {expression!r}: {reasons.get(type(error), error)}.") from error


def _as_python(expression: str) -> str:
    """The expression in Python's notation. Raises ValueError for a character without a meaning."""
    text = " ".join(expression.split()).removesuffix("=")
    text = text.translate(SIGNS)
    if not re.search(r"[A-Za-z]\s*\(", text):
        # Without a function, a comma does not separate arguments.
        text = THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    stray = re.search(r"[^0-9A-Za-z_.,+\-*/%() ]", text)
    if stray:
        raise ValueError(f"{stray[0]!r} has no meaning in arithmetic")
    return text


def _evaluate(text: str) -> Number:
    evaluator = SimpleEval(operators=OPERATORS, functions=FUNCTIONS, names={"pi": math.pi, "e": math.e})
    evaluator.nodes = {kind: evaluator.nodes[kind] for kind in NODES}
    try:
        return _real(evaluator.eval(text, previously_parsed=ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, MemoryError) as error:  # MemoryError: how Python's parser refuses deep nesting
        raise ValueError("it is not a complete arithmetic expression") from error
    except FunctionNotDefined as error:
        raise ValueError(f"there is no function {error.func_name}, only {', '.join(FUNCTIONS)}") from error
    except NameNotDefined as error:
        raise ValueError(f"{error.name} has no value") from error
    except InvalidExpression as error:
        raise ValueError("only numbers, + - * / // % **, parentheses and functions are understood") from error


def _written(value: Number) -> str:
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e15):
        return f"{value:.10g}"
    return str(int(value))


def _real(value: object) -> Number:
    """`value`, if it is a real number of bounded size."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError("it gives no real number")
    if math.isinf(value) if isinstance(value, float) else value.bit_length() > MAX_BITS:
        raise OverflowError
    return value


def _bounded(operation: Callable[..., object]) -> Callable[..., Number]:
    return lambda *numbers: _real(operation(*map(_real, numbers)))


def _power(base: Number, exponent: Number) -> Number:
    # Checked before it is computed: 9**9**9 would take all memory.
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and (int(base).bit_length() - 1) * exponent > MAX_BITS:
        raise OverflowError
    return base**exponent


def _round(value: Number, digits: int = 0) -> Number:
    # round(5, -10**9) would compute 10**10**9.
    return round(value, max(-MAX_BITS, min(MAX_BITS, digits)))


NODES = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant)

OPERATORS = {
    ast.Add: _bounded(operator.add),
    ast.Sub: _bounded(operator.sub),
    ast.Mult: _bounded(operator.mul),
    ast.Div: _bounded(operator.truediv),
    ast.FloorDiv: _bounded(operator.floordiv),
    ast.Mod: _bounded(operator.mod),
    ast.Pow: _bounded(_power),
    ast.USub: _bounded(operator.neg),
    ast.UAdd: _bounded(operator.pos),
}

FUNCTIONS = {
    "sqrt": _bounded(math.sqrt),
    "abs": _bounded(abs),
    "round": _bounded(_round),
    "min": _bounded(lambda *numbers: min(numbers)),
    "max": _bounded(lambda *numbers: max(numbers)),
    "log": _bounded(math.log),
    "exp": _bounded(math.exp),
    "sin": _bounded(math.sin),
    "cos": _bounded(math.cos),
}
