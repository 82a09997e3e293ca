"""`python -m benchmarks`: measures, and prints the tables of RESULTS.md, each as soon as it is done. `python -m
benchmarks layers` measures that part alone; `--few` does as little of each as can be, to see that it runs."""

import argparse
import datetime
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import decoding, edits, layers, machine, questions, reloads, startup
from benchmarks.tables import milliseconds, p95, print_table


def _startup(folder: Path, few: bool) -> None:
    _print_times(startup.measure(folder, times=1 if few else 10))


def _edits(folder: Path, few: bool) -> None:
    _print_times(edits.measure(folder, reloads=1 if few else 60, restarts=1 if few else 10))


def _questions(folder: Path, few: bool) -> None:
    _print_times(questions.measure(times=1 if few else 100))


def _layers(folder: Path, few: bool) -> None:
    layers.report(folder, times=1 if few else 60)


def _reloads(folder: Path, few: bool) -> None:
    for files in (5,) if few else (5, 20, 100):
        _print_times(reloads.measure(folder / str(files), files, times=1 if few else 100))


def _decoding(folder: Path, few: bool) -> None:
    decoding.report(folder, widths=(1, 2) if few else decoding.WIDTHS, few=few)


PARTS: dict[str, Callable[[Path, bool], None]] = {
    "startup": _startup,
    "edits": _edits,
    "questions": _questions,
    "layers": _layers,
    "reloads": _reloads,
    "decoding": _decoding,
}


def _print_times(measured: dict[str, list[float]]) -> None:
    rows = []
    for what, seconds in measured.items():
        figures = (statistics.median(seconds), p95(seconds), min(seconds), max(seconds))
        rows.append([what, str(len(seconds)), *map(milliseconds, figures)])
    print_table(("what", "n", "p50", "p95", "least", "most"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"all unless it is said: {', '.join(PARTS)}")
    parser.add_argument("--few", action="store_true", help="the figures mean nothing then")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print(f"Measured on {datetime.date.today()}: {machine.describe()}.", flush=True)
    for part in arguments.parts or PARTS:
        print(f"\n# {part}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder), arguments.few)


if __name__ == "__main__":
    main()
