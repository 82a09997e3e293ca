"""What first cells would else wait for: modules that libraries import late, tables that they build on first use."""

import contextlib
import io
import sys
from typing import Any

from . import display


def warm_up() -> None:
    """Use each preloaded library once. Must start no thread: what needs Arrow's threads is left out."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None:
        frame = pandas.DataFrame({"name": ["a", "b", "a"], "value": [1.0, 2.0, 3.0]})
        repr(frame.groupby("name")["value"].mean())
        display.shown(frame)
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        with contextlib.suppress(Exception):  # boundary: the first figure says what is wrong
            figure, axes = pyplot.subplots()
            axes.plot([1, 2], [1, 2], label="x")
            axes.legend()
            axes.set_title("x")
            for kind in ("png", "svg"):
                figure.savefig(io.BytesIO(), format=kind, bbox_inches="tight")
            pyplot.close("all")
