"""Reloading: the whole reloadable code of a workspace is replaced at once, as one generation, or not at all.

The rule of this folder: nothing but the files' bytes decides, and each reload works on one snapshot of them.
They are compiled before any of them runs, executed under a private package name by one import hook that all
generations share, checked, and then taken over by moving one pointer. Nothing here imports reloadable code,
and nothing here keeps a reference into a generation once its last pin has ended.
"""

from server.reload.diffs import unified_diffs
from server.reload.failure import ErrorReport, describe
from server.reload.generation import Generation
from server.reload.naming import readable
from server.reload.residue import building_a_model
from server.reload.snapshot import Snapshot
from server.reload.watching import watched
from server.reload.workspace import ReloadReport, Workspace
from server.reload.workspaces import MAIN, Workspaces

__all__ = [
    "MAIN",
    "ErrorReport",
    "Generation",
    "ReloadReport",
    "Snapshot",
    "Workspace",
    "Workspaces",
    "building_a_model",
    "describe",
    "readable",
    "unified_diffs",
    "watched",
]
