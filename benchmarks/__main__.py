"""`python -m benchmarks`: measures, and prints the tables of RESULTS.md, each as soon as it is done. `python -m
benchmarks layers` measures that part alone; `--few` does as little of each as can be, to see that it runs."""

import argparse
import datetime
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    analysis,
    decoding,
    edits,
    fairness,
    hostile,
    jobs,
    layers,
    logprobs,
    machine,
    many_tools,
    pages,
    people,
    pictures,
    questions,
    reloads,
    retrieval,
    sandbox,
    startup,
    telemetry,
    uploads,
)
from benchmarks.tables import milliseconds, p95, p99, print_table


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


def _fairness(folder: Path, few: bool) -> None:
    _print_times(fairness.measure(folder / "server", (1,) if few else (1, 10, 100), times=1 if few else 10))


def _jobs(folder: Path, few: bool) -> None:
    _print_times(jobs.measure(folder, times=2 if few else 200, answers=1 if few else 20))


def _tools(folder: Path, few: bool) -> None:
    many_tools.report(few)


def _uploads(folder: Path, few: bool) -> None:
    uploads.report(folder, mebibytes=8 if few else 1024)


def _hostile(folder: Path, few: bool) -> None:
    rows = []
    for what, (health, asked) in hostile.measure(folder, seconds=1 if few else 10):
        figures = (health.percentile(50), health.percentile(99), max(health.seconds))
        questions = (statistics.median(asked), p95(asked))
        rows.append([what, str(len(health.seconds)), *map(milliseconds, figures)])
        rows[-1] += [str(len(asked)), *map(milliseconds, questions)]
    print_table(("beside", "n", "/health p50", "p99", "most", "n", "a question p50", "p95"), rows)


def _analysis(folder: Path, few: bool) -> None:
    analysis.report(folder, few)


def _sandbox(folder: Path, few: bool) -> None:
    sandbox.report(folder, few)


def _pictures(folder: Path, few: bool) -> None:
    pictures.report(folder, few)


def _retrieval(folder: Path, few: bool) -> None:
    retrieval.report(few)


PARTS: dict[str, Callable[[Path, bool], None]] = {
    "startup": _startup,
    "edits": _edits,
    "questions": _questions,
    "layers": _layers,
    "reloads": _reloads,
    "decoding": _decoding,
    "fairness": _fairness,
    "jobs": _jobs,
    "tools": _tools,
    "uploads": _uploads,
    "hostile": _hostile,
    "analysis": _analysis,
    "sandbox": _sandbox,
    "pictures": _pictures,
    "retrieval": _retrieval,
    "people": people.report,
    "pages": pages.report,
    "logprobs": logprobs.report,
    "telemetry": telemetry.report,
}


def _print_times(measured: dict[str, list[float]]) -> None:
    rows = []
    for what, seconds in measured.items():
        figures = (statistics.median(seconds), p95(seconds), p99(seconds), min(seconds), max(seconds))
        rows.append([what, str(len(seconds)), *map(milliseconds, figures)])
    print_table(("what", "n", "p50", "p95", "p99", "least", "most"), rows)


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
