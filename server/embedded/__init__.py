"""The embedded model: `weights/` is an ordinary Transformers folder. `training/` makes and scores it."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")
