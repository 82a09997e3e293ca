"""The plan of an agent, told as it changes."""

import json
from typing import Any

from server.runs.run import current_run


def tell_plan(steps: list[dict[str, Any]]) -> None:
    """For agents: tell whoever follows the run what is planned and how far it is, as JSON has it. Outside of a run it
    does nothing."""
    run = current_run()
    if run is not None:
        run.events.tell("plan", {"steps": json.loads(json.dumps(steps))})
