"""How figures are shown."""

import statistics
from collections.abc import Iterable, Sequence


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """In Markdown, with an empty line before it."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if abs(seconds) >= 0.01 else f"{1000 * seconds:.2f} ms"


def p95(seconds: Sequence[float]) -> float:
    """What 95 of 100 stay below. Of a single figure that one."""
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]


def p99(seconds: Sequence[float]) -> float:
    """What 99 of 100 stay below. Of a single figure that one."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
