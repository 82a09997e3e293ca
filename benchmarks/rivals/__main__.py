"""`python -m benchmarks.rivals`: measures, and prints a table and what authors of broken files see."""

import argparse
import datetime
import statistics
from importlib.metadata import version

from benchmarks import machine
from benchmarks.rivals.measure import Broken, Editor, Load, Series, broken, series, under_load
from benchmarks.rivals.system import System
from benchmarks.rivals.systems import SYSTEMS, running

PACKAGES = ("gradio", "uvicorn", "ipython", "ipykernel", "ray")
HEAD = "system | n | p50 | p95 | p99 | saved twice | answers | mixed | stale | dropped | unavailable an edit"
MOST_PRINTED = 4000
"""Characters of what a system prints about a mistake that are shown."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=SYSTEMS, help=f"all, unless named: {', '.join(SYSTEMS)}")
    parser.add_argument("--times", type=int, default=100, help="edits in a series")
    parser.add_argument("--slow-times", type=int, default=100, help="the same where an edit is a new process")
    chosen = parser.parse_args()

    print(f"Measured on {datetime.date.today()}: {machine.describe()}; ", end="")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES) + ".\n")
    print(f"| {HEAD} |\n|{'---|' * (HEAD.count(' | ') + 1)}")
    told = ""
    for name in chosen.systems:
        with running(SYSTEMS[name]) as system:
            editor = Editor(system)
            if system.restarts:
                edits = series(editor, 1, chosen.slow_times)
                load = under_load(editor, every=15, seconds=60)
            else:
                edits = series(editor, 5, chosen.times)
                load = under_load(editor, every=3, seconds=45)
            print(row(system, edits, load), flush=True)
            told += tell(system, "a syntax error", broken(editor, unclosed=True))
            told += tell(system, "an error half-way", broken(editor, halfway=True))
    print(told)


def row(system: System, edits: Series, load: Load) -> str:
    """A system's line of the table."""
    percentiles = statistics.quantiles(edits.seconds, n=100, method="inclusive")
    cells = [
        system.name,
        str(len(edits.seconds)),
        *(f"{1000 * percentiles[percent - 1]:,.0f} ms" for percent in (50, 95, 99)),
        str(edits.saved_again),
        str(load.answers),
        str(load.mixed),
        str(load.stale),
        ", ".join(f"{times} {error}" for error, times in load.dropped.items()) or "0",
        f"{load.unavailable:.1f} s",
    ]
    return f"| {' | '.join(cells)} |"


def tell(system: System, what: str, seen: Broken) -> str:
    """What an edit with a mistake came to."""
    answers = ", ".join(f"{times} x {answer}" for answer, times in seen.answers.items())
    lines = (line for line in seen.printed.splitlines() if "POST /" not in line)  # but not each request's line
    printed = "\n".join(lines)[:MOST_PRINTED]
    return f"\n## {system.name}: {what}\n\nanswers: {answers}\ntold: {seen.told}\nprinted:\n{printed}\n"


if __name__ == "__main__":
    main()
