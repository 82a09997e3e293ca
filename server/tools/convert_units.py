"""Conversion of units with pint."""

import functools
import itertools
import math
import re
import threading

import pint
from langchain_core.tools import ToolException, tool

MAX_LENGTH = 60  # characters of a unit

# Common spellings that pint does not know, or reads as another unit.
COMMON_NAMES = {
    "c": "degC",
    "f": "degF",
    "k": "kelvin",
    "fl oz": "fluid_ounce",
    "kilo": "kilogram",
    "gramme": "gram",
    "gm": "gram",
    "kmh": "kilometer / hour",
    "kmph": "kilometer / hour",
}

DEGREES = re.compile(r"^(°|deg(ree)?s?)\s*(?=[cfk])")
POWER = re.compile(r"(?<=[^\W\d])\s?(\*\*|\^)\s?-?\d{1,2}(?!\d)")
SUPERSCRIPT = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
SUPERSCRIPT_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")

BUILDING = threading.Lock()  # Units of different registries can't be compared.


@tool
def convert_units(value: float, from_unit: str, to_unit: str) -> str:
    """Convert a value from one unit to another."""
    for source, target in itertools.product(_meanings(from_unit), _meanings(to_unit)):
        if source.is_compatible_with(target):
            return f"{_converted(value, source, target)} {to_unit}"
    raise ToolException(
        f"{from_unit!r} (read as {source}) cannot be converted to {to_unit!r} (read as {target}): "
        "they measure different things."
    )


def _registry() -> pint.UnitRegistry:
    with BUILDING:
        return _build_registry()


@functools.cache
def _build_registry() -> pint.UnitRegistry:
    return pint.UnitRegistry()


def _meanings(unit: str) -> list[pint.Unit]:
    """The possible meanings of `unit`, the likeliest first: F is Fahrenheit before farad."""
    text = " ".join(SUPERSCRIPT.sub(lambda found: "^" + found[0].translate(SUPERSCRIPT_DIGITS), unit).split())
    plain = DEGREES.sub("", text.lower())
    singular = plain.removesuffix("s")
    common = COMMON_NAMES.get(plain) or COMMON_NAMES.get(singular)
    meanings = [_registry().Unit(common)] if common else []
    if _is_sound(text):
        # pint reads nautical_mile and not nautical miles, but it reads square meters.
        for spelling in (text.replace(" ", "_"), text, plain.replace(" ", "_"), plain, singular):
            try:
                return [*meanings, _registry().Unit(spelling)]
            except Exception:  # boundary: pint raises any error of its tokenizer
                continue
    if not meanings:
        raise ToolException(f"{unit!r} is not a unit that is known here.")
    return meanings


def _is_sound(text: str) -> bool:
    """Whether pint may read it. It computes powers of numbers, and m**9**9**9 would never end."""
    rest = POWER.sub("", text)
    return 0 < len(text) <= MAX_LENGTH and not re.search(r"\^|\*\*|(?<!\w)(?!1\b)\d", rest)


def _converted(value: float, source: pint.Unit, target: pint.Unit) -> str:
    try:
        number = _registry().Quantity(value, source).to(target).magnitude
    except (pint.PintError, ArithmeticError) as error:
        raise ToolException(f"{value:g} {source} cannot be converted to {target}: {error}.") from error
    if not math.isfinite(number):
        raise ToolException(f"{value:g} {source} is too large a number in {target}.")
    rounded = f"{number:.6g}"
    whole = float(rounded)
    return str(int(whole)) if whole.is_integer() and abs(whole) < 1e15 else rounded
