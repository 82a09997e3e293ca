"""The measuring, the same for every system."""

import bisect
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.rivals import user_code
from benchmarks.rivals.system import Ask, RefusedError, System

REQUEST_SECONDS = 60.0
MOST_SECONDS = 180.0
"""An edit that isn't answered by then is a mistake of the benchmark's."""
ASKERS = 8
RETRY_SECONDS = 1.0
"""How soon somebody whose question was dropped asks again."""
POLL_SECONDS = 0.1
"""How soon an author does who waits for the new code."""
GAP_SECONDS = 1.0
"""So long without an answer for anybody counts as unavailable."""


@dataclass
class Series:
    """Edits one after the other."""

    seconds: list[float]
    """From before the edit's first byte to its first answer."""
    saved_again: int
    """Of these edits, those that came through only when the author had saved, and applied, a second time or more."""


@dataclass
class Load:
    """What eight askers saw during edits."""

    seconds: float
    edits: int
    answers: int
    mixed: int
    stale: int
    dropped: Counter[str]
    """By the error."""
    unavailable: float
    """Seconds in all."""


@dataclass
class Broken:
    """What came of an edit with a mistake in it."""

    reported: str = ""
    printed: str = ""
    answers: Counter[str] = field(default_factory=Counter)
    """What was answered after it, by "tool's edit/wording's edit", or the error."""


class Editor:
    """Edits a system's code, each time with the next number."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.number = 0
        self._ask = system.asker(REQUEST_SECONDS)

    def save(self, unclosed: bool = False, halfway: bool = False) -> None:
        """Save the next edit, and do what the system wants done."""
        self.number += 1
        user_code.edit(self.system.tools, self.number, unclosed, halfway)
        self.system.apply()

    def edit(self) -> tuple[float, int]:
        """Seconds from the edit to its first answer, and how often it had to be saved for that."""
        began = time.perf_counter()
        self.save()
        saves, saved = 1, time.perf_counter()
        while _asked(self._ask) != f"{self.number}/{self.number}":
            now = time.perf_counter()
            assert now - began < MOST_SECONDS, f"no answer by edit {self.number}"
            if now - saved >= self.system.patience:
                user_code.edit(self.system.tools, self.number)
                self.system.apply()
                saves, saved = saves + 1, time.perf_counter()
        return time.perf_counter() - began, saves


def series(editor: Editor, warm_up: int, times: int) -> Series:
    """`times` edits, each answered before the next begins, after `warm_up` more that don't count."""
    for _ in range(warm_up):
        editor.edit()
    edits = [editor.edit() for _ in range(times)]
    return Series([seconds for seconds, _ in edits], sum(saves > 1 for _, saves in edits))


def growth(editor: Editor, warm_up: int, times: int) -> float:
    """MiB of resident memory that such edits leave behind."""
    series(editor, 0, warm_up)
    before = _resident_mib(editor.system)
    series(editor, 0, times)
    return _resident_mib(editor.system) - before


def under_load(editor: Editor, every: float, seconds: float) -> Load:
    """Eight askers for `seconds`, each asking again once it is answered, and an edit `every` so many seconds."""
    came: list[tuple[float, float, int, int]] = []  # asked when, answered when, and by which edits
    dropped: Counter[str] = Counter()
    asks = [editor.system.asker(REQUEST_SECONDS) for _ in range(ASKERS)]
    began = time.perf_counter()

    def work(ask: Ask) -> None:
        while (asked := time.perf_counter()) < began + seconds:
            try:
                answer = ask()
            except Exception as error:  # boundary: each client has its own errors
                dropped[_name(error)] += 1
                time.sleep(RETRY_SECONDS)
                continue
            came.append((asked, time.perf_counter(), *answer))

    threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    edits = 0
    while (due := began + (edits + 0.5) * every) < began + seconds:
        time.sleep(max(due - time.perf_counter(), 0))
        editor.save()
        edits += 1
    for thread in threads:
        thread.join()

    came.sort(key=lambda one: one[1])
    times = [answered for _, answered, _, _ in came]
    newest, highest = [], 0
    for _, _, tool, wording in came:
        highest = max(highest, min(tool, wording))
        newest.append(highest)
    stale = 0
    for asked, _, tool, wording in came:
        known = bisect.bisect_right(times, asked)
        stale += tool == wording and known > 0 and tool < newest[known - 1]
    gaps = [later - earlier for earlier, later in zip([began, *times], [*times, began + seconds], strict=True)]
    return Load(
        seconds,
        edits,
        answers=len(came),
        mixed=sum(tool != wording for _, _, tool, wording in came),
        stale=stale,
        dropped=dropped,
        unavailable=sum(gap for gap in gaps if gap > GAP_SECONDS),
    )


def broken(editor: Editor, unclosed: bool = False, halfway: bool = False) -> Broken:
    """Save an edit with such a mistake, ask for a while, and then save one without."""
    system = editor.system
    editor.edit()
    ask = system.asker(system.settling)
    system.reported, printed = "", system.console()
    editor.save(unclosed, halfway)
    seen = Broken()
    deadline = time.perf_counter() + system.settling
    while time.perf_counter() < deadline:
        seen.answers[_asked(ask)] += 1
    seen.reported, seen.printed = system.reported, system.console().removeprefix(printed)
    editor.edit()
    return seen


def _asked(ask: Ask) -> str:
    """The edits that answer, as "tool's/wording's", or else the error; after that a moment passes."""
    try:
        tool, wording = ask()
        return f"{tool}/{wording}"
    except Exception as error:  # boundary: each client has its own errors
        time.sleep(POLL_SECONDS)
        return _name(error)


def _name(error: Exception) -> str:
    return f"HTTP {error.status}" if isinstance(error, RefusedError) else type(error).__name__


def _resident_mib(system: System) -> float:
    rss: int = sum(process.memory_info().rss for process in system.processes())
    return rss / 2**20
