"""The steps of an agent, told as they are done."""

import json
from dataclasses import asdict
from typing import Any

from server.runs.run import current_run


def tell_step(step: Any) -> None:
    """For agents: tell whoever follows the run that `step` is done.

    `step` is what the agent will have among its result's `steps`: a dataclass with `thought`, `tool`, `input`,
    `observation` and `error`. Outside of a run it does nothing. An agent that doesn't call it works as well: then its
    steps are told at its end, and a run that is stopped before has none to show.
    """
    run = current_run()
    if run is not None:
        run.did_step(as_json(step))


def as_json(step: Any) -> dict[str, Any]:
    """A step as the routes show it: of plain values only, which keep no reloadable code in memory. Raises `TypeError`
    or `ValueError` for one that is no JSON."""
    shown = {name: value for name, value in asdict(step).items() if name != "error" or value is not None}
    plain: dict[str, Any] = json.loads(json.dumps(shown))
    return plain
