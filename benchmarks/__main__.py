"""`python -m benchmarks`: measures, and prints a table."""

import datetime
import statistics
import tempfile
from pathlib import Path

from benchmarks import edits, machine, questions, reloads, startup


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = startup.measure(folder / "startup", times=10)
        (folder / "edits").mkdir()
        measured |= edits.measure(folder / "edits", reloads=60, restarts=10)
        for files in (5, 20, 100):
            measured |= reloads.measure(folder / f"reloads-{files}", files, times=100)
    measured |= questions.measure(times=100)
    print(f"Measured on {datetime.date.today()}: {machine.describe()}.\n")
    print("| what | n | p50 | p95 | least | most |\n|---|---|---|---|---|---|")
    for what, seconds in measured.items():
        p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
        figures = (statistics.median(seconds), p95, min(seconds), max(seconds))
        shown = (f"{1000 * one:,.0f} ms" if one >= 0.01 else f"{1000 * one:.2f} ms" for one in figures)
        print(f"| {what} | {len(seconds)} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
