"""Reloading: the whole reloadable code of a workspace is replaced at once, as one generation, or not at all.

The rule of this folder: only the files' bytes count, and each reload works on one snapshot of them. They are written
into a folder of their own, loaded in a worker, checked, and then made live by moving one pointer. Nothing here
executes them.
"""

from server.reload.changes import unified_diffs
from server.reload.code_folder import CodeFolders
from server.reload.code_loader import CodeLoader
from server.reload.generation import Generation
from server.reload.snapshot import Snapshot
from server.reload.workspace import CodeRunner, ReloadReport, Workspace
from server.reload.workspaces import MAIN, Workspaces

__all__ = [
    "MAIN",
    "CodeFolders",
    "CodeLoader",
    "CodeRunner",
    "Generation",
    "ReloadReport",
    "Snapshot",
    "Workspace",
    "Workspaces",
    "unified_diffs",
]
