"""How pandas reads a table in a text file: the arguments, the conversions after it, and both as code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cell_types import DECORATION, NumberFormat

MAX_CODE = 16_000
"""Characters of `how_to_read`."""
MAX_SPELLED = 8_000
"""Characters of all names, which the code spells out if they are not more."""
RENAME = (
    'df.columns = [f"column_{i + 1}" if str(name).startswith("Unnamed: ") else str(name).strip()'
    " for i, name in enumerate(df.columns)]"
)


@dataclass(frozen=True)
class Conversion:
    """What turns a column of texts into dates or numbers."""

    column: str
    date_format: str | None = None
    utc: bool = False
    numbers: NumberFormat | None = None
    """Of a column of numbers with signs or spaces, which are removed."""

    def apply(self, frame: Any) -> None:
        """Changes the column. Raises ValueError if a value does not fit."""
        import pandas

        values = frame[self.column]
        if self.date_format:
            frame[self.column] = pandas.to_datetime(values, format=self.date_format, utc=self.utc)
            return
        assert self.numbers
        values = values.str.replace(DECORATION, "", regex=True).str.replace("\u2212", "-")
        if self.numbers.thousands:
            values = values.str.replace(self.numbers.thousands, "")
        frame[self.column] = pandas.to_numeric(values.str.replace(self.numbers.decimal, "."))

    def code(self, name: str) -> str:
        """The same in Python; `name` is an expression for the column's name."""
        target = f"df[{name}]"
        if self.date_format:
            utc = ", utc=True" if self.utc else ""
            return f"{target} = pd.to_datetime({target}, format={self.date_format!r}{utc})"
        assert self.numbers
        chain = f'{target}.str.replace({DECORATION!r}, "", regex=True).str.replace("\\u2212", "-")'
        if self.numbers.thousands:
            chain += f'.str.replace({self.numbers.thousands!r}, "")'
        if self.numbers.decimal != ".":
            chain += f'.str.replace({self.numbers.decimal!r}, ".")'
        return f"{target} = pd.to_numeric({chain})"


def code_of(conversions: Sequence[Conversion]) -> list[str]:
    """The lines of all: a loop where several columns have the same conversion."""
    groups: dict[str, list[Conversion]] = {}
    for conversion in conversions:
        groups.setdefault(conversion.code("name"), []).append(conversion)
    lines = []
    for looped, group in groups.items():
        if len(group) < 3:
            lines += [conversion.code(repr(conversion.column)) for conversion in group]
        else:
            lines += [f"for name in {[conversion.column for conversion in group]!r}:", f"    {looped}"]
    return lines


@dataclass
class Reading:
    """Arguments of `pandas.read_csv` that differ from its defaults."""

    arguments: dict[str, Any]
    names: list[str]
    conversions: list[Conversion] = field(default_factory=list)
    names_differ: bool = False
    """From those that pandas would make of the header. They are then an argument, unless they are very many."""

    def read(self, path: Any, **more: Any) -> Any:
        """A DataFrame. Raises what `read_csv` raises, and ValueError if a value does not fit its conversion."""
        import pandas

        frame = pandas.read_csv(path, **self._all_arguments(), **more)
        if self._names_after:
            frame.columns = self.names[: frame.shape[1]]
        for conversion in self.conversions:
            if conversion.column in frame.columns:
                conversion.apply(frame)
        return frame

    def code(self, name: str) -> str:
        """Python that reads the file of this name in the current folder into `df`."""
        given = [f"{key}={value!r}" for key, value in self._all_arguments().items()]
        lines = ["import pandas as pd", "", f"df = pd.read_csv({', '.join([repr(name), *given])})"]
        if len(lines[-1]) > 100:
            lines[-1] = f"df = pd.read_csv(\n    {name!r},\n" + "".join(f"    {part},\n" for part in given) + ")"
        if self._names_after:
            lines.append(RENAME)
        lines += code_of(self.conversions)
        code = "\n".join(lines)
        if len(code) <= MAX_CODE:
            return code
        # Very many columns with types of their own: the code reads the table, and leaves these types out.
        few = {key: value for key, value in self.arguments.items() if key not in ("dtype", "na_values")}
        return Reading(few, self.names, [], self.names_differ).code(name)

    def without_bad_lines(self) -> "Reading":
        """The same for a file with lines of too many fields: they are left out."""
        return Reading({**self.arguments, "on_bad_lines": "skip"}, self.names, self.conversions, self.names_differ)

    def as_text(self, column: str) -> "Reading":
        """The same, with this column as text."""
        arguments = {**self.arguments, "dtype": {**self.arguments.get("dtype", {}), column: "str"}}
        conversions = [conversion for conversion in self.conversions if conversion.column != column]
        return Reading(arguments, self.names, conversions, self.names_differ)

    @property
    def _names_after(self) -> bool:
        return self.names_differ and len(repr(self.names)) > MAX_SPELLED

    def _all_arguments(self) -> dict[str, Any]:
        arguments = dict(self.arguments)
        if self.names_differ and not self._names_after:
            arguments |= {"names": self.names}
            arguments.setdefault("header", 0)
        return arguments
