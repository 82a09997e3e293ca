"""The style sheets in an HTML page, as far as they may hide something. Runs in the sandbox."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_RULES = 3_000
LONGEST_SHEET = 300_000
"""Characters of all style sheets of a page."""
LONGEST_SELECTOR = 10_000
MOST_ANCESTORS = 64
_OF_USE = frozenset(
    "display visibility opacity color background background-color background-image font-size position left top right "
    "bottom inset text-indent margin margin-left margin-top width height max-width max-height overflow overflow-x "
    "overflow-y clip clip-path transform filter zoom font content-visibility -webkit-text-fill-color "
    "inset-inline-start margin-inline-start".split()
)
_COMPOUND = re.compile(r"(?P<tag>\*|[a-z][\w-]*)?(?P<rest>(?:[.#][\w-]+|\[[^\]\"'=~|^$*]+\])*)", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)")


@dataclass(frozen=True)
class _Part:
    """`div.note#first[hidden]`: what one element must have."""

    tag: str
    classes: frozenset[str]
    id: str
    attributes: frozenset[str]

    def fits(self, element: Any) -> bool:
        if not isinstance(element.tag, str):
            return False
        return (
            self.tag in ("", "*", element.tag.lower())
            and (not self.id or element.get("id") == self.id)
            and self.classes <= set(element.get("class", "").split())
            and all(name in element.attrib for name in self.attributes)
        )


@dataclass(frozen=True)
class _Rule:
    order: tuple[int, int, int, int]
    """Specificity and place: later ones win."""
    last: _Part
    above: tuple[_Part, ...]
    """What the elements around it must have, from the outside in."""
    normal: dict[str, str]
    important: dict[str, str]


class Rules:
    """The rules of a page, found by what an element has."""

    def __init__(self) -> None:
        self._by: dict[str, list[_Rule]] = defaultdict(list)
        self.count = 0

    def add(self, rule: _Rule) -> None:
        """Add a rule."""
        key = f"#{rule.last.id}" if rule.last.id else next((f".{one}" for one in sorted(rule.last.classes)), "")
        self._by[key or rule.last.tag or "*"].append(rule)
        self.count += 1

    def of(self, element: Any) -> dict[str, str]:
        """What rules and inline style say of an element, by the order of the cascade."""
        if not isinstance(element.tag, str):
            return {}
        inline, inline_important = declarations(element.get("style", ""))
        if not self.count:
            return inline | inline_important
        classes = element.get("class", "").split()[:50]
        keys = [f"#{element.get('id')}", *(f".{one}" for one in classes), element.tag.lower(), "*"]
        found = [rule for key in dict.fromkeys(keys) for rule in self._by.get(key, ()) if rule.last.fits(element)]
        found = sorted((one for one in found if _is_within(element, one.above)), key=lambda one: one.order)
        style: dict[str, str] = {}
        for rule in found:
            style |= rule.normal
        style |= inline
        for rule in found:
            style |= rule.important
        return style | inline_important


def rules_of(root: Any) -> Rules:
    """The rules of the page's `<style>` elements that a screen applies."""
    rules = Rules()
    sheets = [element for element in root.iter("style") if _is_for_screens(element.get("media", ""))]
    text = "\n".join(element.text or "" for element in sheets)[:LONGEST_SHEET]
    for selectors, body in _blocks(_COMMENT.sub(" ", text)):
        normal, important = declarations(body)
        if not normal and not important:
            continue
        for selector in selectors.split(","):
            if rules.count >= MOST_RULES:
                return rules
            parts = [_part(one) for one in re.split(r"\s*>\s*|\s+", selector.strip()) if one]
            if not parts or len(parts) > 8 or None in parts:
                continue  # a selector that is not understood: of a state, of a neighbour
            known = [part for part in parts if part is not None]
            order = (
                sum(bool(part.id) for part in known),
                sum(len(part.classes) + len(part.attributes) for part in known),
                sum(part.tag not in ("", "*") for part in known),
                rules.count,
            )
            rules.add(_Rule(order, known[-1], tuple(known[:-1]), normal, important))
    return rules


def declarations(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """`display: none; color: #fff !important` as dictionaries in lower case: the normal and the important ones. Only
    what may hide something."""
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for one in _unescaped(_COMMENT.sub("", text[:20_000])).split(";"):
        name, colon, value = one.partition(":")
        name, value = name.strip().lower(), value.strip().lower()
        if not colon or name not in _OF_USE:
            continue
        plain = re.sub(r"\s*!\s*important$", "", value)
        if name == "font":
            size = re.search(r"(?:^|\s)(\d*\.?\d+(?:px|pt|em|rem|%)?)(?:/|\s)", plain)
            name, plain = "font-size", size[1] if size else "medium"
        found[plain != value][name] = plain
    return found


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Selectors and declarations, also those in @media and @supports, unless they are for other media than
    screens."""
    place, head, shown = 0, "", list[bool]()
    for found in re.finditer(r"[{}]", text):
        between, place = text[place : found.start()], found.end()
        if found[0] == "}":
            if head and shown[-1]:
                yield _unescaped(head), between
            head = ""
            if shown:
                shown.pop()
            continue
        head = between.rpartition(";")[2].strip()[:LONGEST_SELECTOR]
        is_applied = not shown or shown[-1]
        if head.startswith("@"):
            is_nested = head.lower().startswith(("@media", "@supports", "@layer", "@container"))
            is_applied = is_applied and is_nested and _is_for_screens(head.lower())
            head = ""
        shown.append(is_applied)
    if head and shown[-1]:  # browsers close the last one themselves
        yield _unescaped(head), text[place:]


def _is_for_screens(media: str) -> bool:
    return not re.search(r"\b(?:print|speech|braille)\b", media) or "screen" in media or "all" in media


def _part(text: str) -> _Part | None:
    found = _COMPOUND.fullmatch(text)
    if found is None:
        return None
    marks = re.findall(r"([.#\[])([\w-]+)", found["rest"])
    return _Part(
        (found["tag"] or "").lower(),
        frozenset(name for mark, name in marks if mark == "."),
        next((name for mark, name in marks if mark == "#"), ""),
        frozenset(name.lower() for mark, name in marks if mark == "["),
    )


def _is_within(element: Any, above: tuple[_Part, ...]) -> bool:
    """Whether the elements around it are these, from the inside out; others may be between them."""
    wanted = list(above)
    for count, parent in enumerate(element.iterancestors()):
        if not wanted or count > MOST_ANCESTORS:
            break
        if wanted[-1].fits(parent):
            wanted.pop()
    return not wanted


def _unescaped(text: str) -> str:
    def character(found: "re.Match[str]") -> str:
        if found[1] is None:
            return found[2]
        number = int(found[1], 16)
        return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"

    return _ESCAPE.sub(character, text)
