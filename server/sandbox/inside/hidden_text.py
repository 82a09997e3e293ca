"""Removing from an HTML page what a person who looks at it does not see. Runs in the sandbox.

Known: the attributes, inline styles, and the style sheets in the page. Not known: style sheets in other files, which
are not loaded, and scripts. A text in the colour of its background is removed if both are said in the page; white
text is removed where the page says nothing of the background.
"""

import re
from collections.abc import Mapping
from typing import Any

from .style_sheets import rules_of

_NEVER_SHOWN = frozenset(
    "applet area audio base canvas datalist embed frame frameset head iframe input link map meta noembed noframes "
    "noscript object optgroup option param rp script select style svg template textarea title track video xml "
    "annotation annotation-xml".split()
)
_HIDING_CLASSES = frozenset(
    "sr-only visually-hidden visuallyhidden screen-reader-text screen-reader-only screenreader-only a11y-hidden "
    "cdk-visually-hidden element-invisible d-none is-hidden u-hidden invisible offscreen off-screen hidden".split()
)
_SHOWN_AGAIN = re.compile(r"[\w-]+:(?:block|flex|grid|inline[\w-]*|table|visible|not-sr-only)|d-(?!none|print)[\w-]+")
"""Classes that show it on wider screens."""
MOST_SPAN = 20
"""Columns of one cell: text extraction makes so many."""
FAR = 200.0
"""Pixels beyond the edge of the page that are out of sight."""
FARTHEST = 5000.0
"""Pixels from the edge into the page, where no page has its text."""
FAINTEST = 0.1
"""Opacity."""
SMALLEST = 3.0
"""Pixels of a letter that can be read."""
CLOSEST = 24
"""Difference of two colours, in each of red, green and blue, that can't be seen."""
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff\U0001d173-\U0001d17a\U0001bca0-\U0001bca3\ue000-\uf8ff\U000f0000-\U0010ffff]"
)
"""Characters without a shape: joiners, marks of direction, tags, variants, fillers; and those of private use."""
_LENGTH = re.compile(r"(-?\d*\.?\d+)(?:e([+-]?\d+))?\s*(px|pt|em|rem|ex|ch|%|vw|vh|vmin|vmax|cm|mm|in|pc|q)?", re.I)
_PIXELS = {"px": 1.0, "pt": 1.33, "em": 16, "rem": 16, "ex": 8, "ch": 8, "%": 8, "vw": 12, "vh": 8, "vmin": 8}
_PIXELS |= {"vmax": 12, "cm": 37.8, "mm": 3.78, "in": 96, "pc": 16, "q": 0.945}
_COLOURS = {
    "white": (255, 255, 255),
    "snow": (255, 250, 250),
    "ivory": (255, 255, 240),
    "ghostwhite": (248, 248, 255),
    "whitesmoke": (245, 245, 245),
    "floralwhite": (255, 250, 240),
    "mintcream": (245, 255, 250),
    "azure": (240, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "navy": (0, 0, 128),
}
_SEE_THROUGH = "transparent"
Colour = tuple[int, int, int]


def without_invisible(text: str) -> str:
    """The text without characters that have no shape."""
    return _INVISIBLE.sub("", text)


def remove_hidden(root: Any) -> int:
    """Remove what is not seen from a tree of lxml, also comments and the texts of attributes. Returns how many
    elements were removed. The tree may be hostile: no recursion, and time in proportion to its size."""
    from lxml import etree

    rules = rules_of(root)
    for element in list(root.iter(etree.Comment, etree.ProcessingInstruction, etree.Entity)):
        _drop(element)
    removed = 0
    white: Colour = (255, 255, 255)
    waiting: list[tuple[Any, Colour | None, Colour | None, bool, float]] = [(root, (0, 0, 0), white, False, 16.0)]
    while waiting:
        element, colour, background, is_covered, letters = waiting.pop()
        tag = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
        style = rules.of(element)
        _from_attributes(element, tag, style)
        letters = _letters(style, letters)
        if tag in _NEVER_SHOWN or _is_hidden(element, tag, style):
            _drop(element)
            removed += 1
            continue
        own = style.get("background-color") or style.get("background", "")
        if "url(" in own or "gradient" in own or "url(" in style.get("background-image", ""):
            background = None  # a picture: nothing is known
        elif isinstance(given := _colour(own), tuple):
            background = given
        text = style.get("-webkit-text-fill-color") or style.get("color", "")
        if (given := _colour(text)) is not None:
            colour = given if isinstance(given, tuple) else None
        # Its children may have a colour of their own, so only its own text goes.
        is_covered = style.get("visibility", "visible" if not is_covered else "hidden") in ("hidden", "collapse")
        unseen = is_covered or colour is None or (background is not None and _is_close(colour, background))
        if unseen or letters < SMALLEST:
            removed += _drop_own_text(element)
        waiting += [(child, colour, background, is_covered, letters) for child in element]
    # Now, because rules also look at what is around an element.
    for element in root.iter():
        _keep_spans(element)
    return removed


def _keep_spans(element: Any) -> None:
    """Remove all attributes but small spans of cells. Others, such as alt, title and aria-label, are texts that are
    not on the page."""
    spans = {name: element.get(name, "").strip() for name in ("colspan", "rowspan")}
    element.attrib.clear()
    for name, span in spans.items():
        if span.isascii() and span.isdigit() and 1 < int(span[:6]) <= MOST_SPAN:
            element.set(name, span)


def _from_attributes(element: Any, tag: str, style: dict[str, str]) -> None:
    """What old attributes say of the style."""
    if tag == "font" and element.get("color"):
        style.setdefault("color", element.get("color").lower())
    if tag == "font" and element.get("size", "").strip() == "0":
        style.setdefault("font-size", "0")
    if tag == "body" and element.get("text"):
        style.setdefault("color", element.get("text").lower())
    if element.get("bgcolor"):
        style.setdefault("background-color", element.get("bgcolor").lower())


def _is_hidden(element: Any, tag: str, style: Mapping[str, str]) -> bool:
    """Whether the element is not shown, with all that is in it."""
    get = style.get
    if "hidden" in element.attrib and get("display", "none") == "none":
        return True
    if element.get("aria-hidden", "").strip().lower() == "true" or "inert" in element.attrib:
        return True
    if tag == "dialog" and "open" not in element.attrib:
        return True
    classes = element.get("class", "").split()
    if not _HIDING_CLASSES.isdisjoint(classes) and not any(map(_SHOWN_AGAIN.fullmatch, classes)):
        return True
    if get("display", "") == "none" or get("content-visibility", "") == "hidden":
        return True
    if _number(get("opacity"), 1.0) < FAINTEST or _number(get("zoom"), 1.0) == 0:
        return True
    if re.search(r"opacity\(\s*0*\.?0*%?\s*\)", get("filter", "")):
        return True
    if re.search(r"scale[xy3d]*\(\s*0*\.?0*\s*[,)]|translate\w*\([^)]*-\d{3,}", get("transform", "")):
        return True
    if _is_clipped(get("clip", ""), get("clip-path", "")):
        return True
    clips = any(get(name, "") in ("hidden", "clip") for name in ("overflow", "overflow-x", "overflow-y"))
    sizes = [get(name) for name in ("width", "height", "max-width", "max-height")]
    if clips and any(size is not None and 0 <= _pixels(size, FAR) <= 1 for size in sizes):
        return True
    is_moved = get("position", "static") != "static"
    edges = ("left", "top", "right", "bottom", "inset", "inset-inline-start") if is_moved else ()
    margins = ("text-indent", "margin-left", "margin-top", "margin", "margin-inline-start")
    moved = [length for name in (*edges, *margins) for length in _lengths(get(name, ""))]
    return any(length <= -FAR or length >= FARTHEST for length in moved)


def _is_clipped(clip: str, path: str) -> bool:
    """Whether nothing of the element is left."""
    sides = [_pixels(one, 0.0) for one in re.split(r"[\s,]+", clip.removeprefix("rect(").removesuffix(")").strip())]
    if clip.startswith("rect(") and len(sides) == 4 and "auto" not in clip:
        top, right, bottom, left = sides
        if right - left <= 1 or bottom - top <= 1:
            return True
    return bool(re.search(r"inset\(\s*(?:[5-9]\d|100)(?:\.\d+)?%|circle\(\s*0|polygon\(\s*0\s*0\s*\)", path))


def _letters(style: Mapping[str, str], inherited: float) -> float:
    """Pixels of the letters."""
    size = style.get("font-size")
    if size is None:
        return inherited
    found = _LENGTH.fullmatch(size)
    if found is None:
        return 16.0 if size else inherited
    if (found[3] or "").lower() in ("em", "%", "ex", "ch"):
        part = _amount(found) / (100 if found[3] == "%" else 1)
        return inherited * part
    return _pixels(size, inherited)


def _pixels(value: str | None, otherwise: float) -> float:
    found = _LENGTH.match(value or "")
    if found is None:
        return otherwise
    return _amount(found) * _PIXELS[(found[3] or "px").lower()]


def _lengths(value: str) -> list[float]:
    """All lengths of a value, in pixels."""
    return [_pixels(one, 0.0) for one in value.split()[:8]]


def _amount(found: "re.Match[str]") -> float:
    try:
        return min(max(float(found[1]) * 10.0 ** max(min(int(found[2] or 0), 9), -9), -1e9), 1e9)
    except ValueError:
        return 0.0


def _number(value: str | None, otherwise: float) -> float:
    found = re.match(r"\s*(\d*\.?\d+)(?:e(-?\d{1,3}))?\s*(%?)", value or "")
    if found is None:
        return otherwise
    return float(found[1]) * 10.0 ** int(found[2] or 0) / (100 if found[3] else 1)


def _colour(value: str) -> Colour | str | None:
    """The first colour of a value; None: none is known."""
    value = value.strip().lower()
    if found := re.search(r"#([0-9a-f]{3,8})\b", value):
        digits = found[1]
        if len(digits) in (3, 4):
            digits = "".join(one * 2 for one in digits)
        if len(digits) == 8 and int(digits[6:], 16) < 26:
            return _SEE_THROUGH
        return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)) if len(digits) in (6, 8) else None
    if found := re.search(r"\b(rgb|hsl)a?\(([^)]*)\)", value):
        parts = re.findall(r"-?\d*\.?\d+%?", found[2])
        if len(parts) >= 4 and _number(parts[3], 1.0) < FAINTEST:
            return _SEE_THROUGH
        if len(parts) < 3:
            return None
        if found[1] == "hsl":
            light = _number(parts[2], 0.5)
            return (255, 255, 255) if light > 0.95 else (0, 0, 0) if light < 0.05 else None
        red, green, blue = (int(min(_number(one, 0) * (255 if one.endswith("%") else 1), 255)) for one in parts[:3])
        return red, green, blue
    for word in re.findall(r"[a-z]+", value):
        if word == _SEE_THROUGH:
            return _SEE_THROUGH
        if word in _COLOURS:
            return _COLOURS[word]
    return None


def _is_close(one: Colour | str, other: Colour | str) -> bool:
    return (
        isinstance(one, tuple)
        and isinstance(other, tuple)
        and all(abs(mine - yours) <= CLOSEST for mine, yours in zip(one, other, strict=True))
    )


def _drop(element: Any) -> None:
    """Remove an element with all that is in it; what follows it stays."""
    parent = element.getparent()
    if parent is None:
        element.text = None
        for child in list(element):
            element.remove(child)
        return
    tail, before = element.tail, element.getprevious()
    if tail:
        if before is not None:
            before.tail = (before.tail or "") + tail
        else:
            parent.text = (parent.text or "") + tail
    element.tail = None
    parent.remove(element)


def _drop_own_text(element: Any) -> int:
    """Remove the texts directly in an element."""
    had = int(bool((element.text or "").strip()))
    element.text = " "
    for child in element:
        had += bool((child.tail or "").strip())
        child.tail = " "
    return had
