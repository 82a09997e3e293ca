"""`python -m benchmarks.rivals`: measures, and prints a table and what authors of broken files see.

The systems take turns, round by round, so that all share the machine's moods. What each turn came to goes to the
standard error.
"""

import argparse
import datetime
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from benchmarks import machine
from benchmarks.rivals.measure import Broken, Editor, Load, Series, broken, series, under_load
from benchmarks.rivals.system import System
from benchmarks.rivals.systems import SYSTEMS, running

PACKAGES = ("gradio", "uvicorn", "ipython", "ipykernel", "ray")
HEAD = "system | n | p50 | p95 | p99 | saved twice | answers/s | mixed | stale | dropped | unavailable an edit"
MOST_PRINTED = 4000
"""Characters of what a system prints about a mistake that are shown."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=SYSTEMS, help=f"all, unless named: {', '.join(SYSTEMS)}")
    parser.add_argument("--rounds", type=int, default=4, help="how often each system has its turn")
    parser.add_argument("--times", type=int, default=25, help="edits one after the other in a turn")
    parser.add_argument("--slow-times", type=int, default=25, help="the same where an edit is a new process")
    chosen = parser.parse_args()

    print(f"Measured on {datetime.date.today()}: {machine.describe()}; ", end="")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES) + ".\n")
    turns: dict[str, list[tuple[Series, Load]]] = {name: [] for name in chosen.systems}
    reports = ""
    for number in range(chosen.rounds):
        for name in chosen.systems:
            with running(SYSTEMS[name]) as system:
                editor = Editor(system)
                if system.restarts:
                    turn = series(editor, 1, chosen.slow_times), under_load(editor, every=15, seconds=30)
                else:
                    turn = series(editor, 5, chosen.times), under_load(editor, every=3, seconds=15)
                turns[name].append(turn)
                print(f"round {number + 1}: {row(system.name, [turn])}", file=sys.stderr, flush=True)
                if number == 0:
                    reports += report(system, "a syntax error", broken(editor, unclosed=True))
                    reports += report(system, "an error half-way", broken(editor, halfway=True))
    print(f"| {HEAD} |\n|{'---|' * (HEAD.count(' | ') + 1)}")
    for name, had in turns.items():
        print(row(SYSTEMS[name].name, had))
    print(reports)


def row(name: str, turns: Sequence[tuple[Series, Load]]) -> str:
    """A system's line of the table, of all its turns: answers a second are their median."""
    edits, loads = [turn[0] for turn in turns], [turn[1] for turn in turns]
    seconds = [one for turn in edits for one in turn.seconds]
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    dropped = sum((load.dropped for load in loads), Counter[str]())
    cells = [
        name,
        str(len(seconds)),
        *(f"{1000 * percentiles[percent - 1]:,.0f} ms" for percent in (50, 95, 99)),
        str(sum(turn.saved_again for turn in edits)),
        f"{statistics.median(load.answers / load.seconds for load in loads):.1f}",
        str(sum(load.mixed for load in loads)),
        str(sum(load.stale for load in loads)),
        ", ".join(f"{times} {error}" for error, times in dropped.items()) or "0",
        f"{sum(load.unavailable for load in loads) / sum(load.edits for load in loads):.1f} s",
    ]
    return f"| {' | '.join(cells)} |"


def report(system: System, what: str, seen: Broken) -> str:
    """What an edit with a mistake came to."""
    answers = ", ".join(f"{times} x {answer}" for answer, times in seen.answers.items())
    lines = (line for line in seen.printed.splitlines() if "POST /" not in line)  # but not each request's line
    printed = "\n".join(lines)[:MOST_PRINTED]
    return f"\n## {system.name}: {what}\n\nanswers: {answers}\nreported: {seen.reported}\nprinted:\n{printed}\n"


if __name__ == "__main__":
    main()
