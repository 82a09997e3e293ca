"""Escaping a model's control tokens in untrusted text."""

import re
from collections.abc import Iterable

#: Stands inside every control token's name that came from outside, where the engine splits the text before it
#: looks for control tokens. A noncharacter that Unicode keeps for use inside programs.
MARK = "\ufdd0"


class ControlTokens:
    """The control tokens of one model, by their names, like `<|eos|>`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted({name for name in names if len(name) > 1}, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, self.names))) if self.names else None

    def protect(self, text: str) -> str:
        """Untrusted `text`, marked so that nothing in it is read as a control token.

        The marks are for the engine only. `reveal` removes them from text that is shown.
        """
        text = text.replace(MARK, "")
        if self._any is None:
            return text
        return self._any.sub(lambda found: found[0][0] + MARK + found[0][1:], text)

    @staticmethod
    def reveal(text: str) -> str:
        """Protected text without its marks."""
        return text.replace(MARK, "")
