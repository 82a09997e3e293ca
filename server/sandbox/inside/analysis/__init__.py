"""Analyses uploaded files: what is in them, and how code reads them right. Runs in the sandbox, on hostile files.

An analysis belongs in a process of its own: it changes settings of libraries, such as Pillow's maximum of pixels, and
a hostile file may end the process.

Rules: nothing outside of this package is imported but the standard library and the sandbox's packages, and heavy ones
of these inside the functions that need them. Each module reads one kind of file, within bounds that it says.
"""

from .analyse import VERSION, analyse
from .page_texts import write_page_texts
from .profile import profile
from .result import Refused

__all__ = ["VERSION", "Refused", "analyse", "profile", "write_page_texts"]
