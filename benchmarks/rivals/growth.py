"""`python -m benchmarks.rivals.growth`: what edits leave behind in memory, where they don't make a new process."""

import argparse

from benchmarks.rivals.measure import Editor, growth
from benchmarks.rivals.systems import SYSTEMS, running


def main() -> None:
    within_a_process = [name for name, kind in SYSTEMS.items() if not kind.restarts]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "systems", nargs="*", default=within_a_process, help=f"all, unless named: {', '.join(within_a_process)}"
    )
    parser.add_argument("--times", type=int, default=1000, help="edits, after 50 to warm up; and once more as many")
    chosen = parser.parse_args()
    print(f"| system | resident memory, {chosen.times} edits | {chosen.times} more |\n|---|---|---|")
    for name in chosen.systems:
        with running(SYSTEMS[name]) as system:
            editor = Editor(system)
            first, more = growth(editor, 50, chosen.times), growth(editor, 0, chosen.times)
            print(f"| {system.name} | {first:+.1f} MiB | {more:+.1f} MiB |", flush=True)


if __name__ == "__main__":
    main()
