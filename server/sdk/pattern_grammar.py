"""What a grammar can say of a regular expression."""

import re

LONGEST_PATTERN, MOST_REPEATS = 500, 256
"""Characters of a pattern, and the largest count in its braces."""

_CODE = r"\\x[0-9a-fA-F]{2} | \\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
_MARK = r"\\[\ -/:;=?@\[-`{-~]"
# What ECMAScript, pydantic's dialect and llguidance's read alike. Whatever else stands in a pattern, no grammar says.
_TOKEN = re.compile(
    rf"""
      (?P<open>   \( (?: \?: | \?P?<[A-Za-z_]\w*> | (?!\?) ) )
    | (?P<close>  \) )
    | (?P<set>    \[ \^? (?: \\[dDwWsSntrfv] | {_CODE} | {_MARK} | (?!--|&&|~~)[^\[\]\\] )+ \] )
    | (?P<escape> \\[dDwWsSntrfv] | \\p\{{[A-Z][a-z]?\}} | {_CODE} | {_MARK} )
    | (?P<repeat> (?: [*+?] | \{{ (?P<least>\d+) (?: , (?P<most>\d*) )? \}} ) \?? )
    | (?P<begin>  \^ )
    | (?P<end>    \$ )
    | (?P<or>     \| )
    | (?P<plain>  [^\\()\[\]{{}}*+?^$|] )
    """,
    re.VERBOSE,
)
_KINDS = ("open", "close", "set", "escape", "repeat", "begin", "end", "or", "plain")
_NO_RANGE = re.compile(r"\\[dDwWsS]-.|.-\\[dDwWsS]", re.DOTALL)
# Of all scripts, as pydantic understands them; ECMAScript's are those of ASCII.
_DIGIT, _LETTER = r"\p{Nd}", r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"


def pattern_of_grammar(pattern: str, exact: bool = False) -> str | None:
    r"""A pattern for llguidance that matches at least what `pattern` matches in ECMAScript and in pydantic's dialect;
    with `exact`, what it matches in ECMAScript. None if there is none: for lookaround, `\b`, references to groups,
    flags, large counts."""
    made, place, depth, before = list[str](), 0, 0, ""
    while place < len(pattern) <= LONGEST_PATTERN:
        token = _TOKEN.match(pattern, place)
        if token is None:
            return None
        kind = next(kind for kind in _KINDS if token[kind] is not None)
        depth += {"open": 1, "close": -1}.get(kind, 0)
        # Anchors elsewhere are lookaround.
        begins = before in ("", "or") and depth == 0
        if (
            depth < 0
            or (kind == "begin" and not begins)
            or (kind == "end" and depth > 0)
            or (before == "end" and kind != "or")
            or (kind == "repeat" and (before in ("", "begin", "open", "or", "repeat") or not _is_small(token)))
        ):
            return None
        text = _said(kind, token[0], exact)
        if text is None:
            return None
        made.append(text)
        place, before = token.end(), kind
    return "".join(made) if place == len(pattern) and depth == 0 else None


def _said(kind: str, text: str, exact: bool) -> str | None:
    """A token for llguidance, which reads `\\d` and `\\w` as ECMAScript does."""
    if kind == "open":
        return "(?:"
    if kind == "escape" and not exact:
        return {r"\d": _DIGIT, r"\w": f"[{_LETTER}]"}.get(text, text)
    if kind == "set":
        if _NO_RANGE.search(text[1:-1].removeprefix("^")):
            return None
        if not exact and text.startswith("[^"):
            # Less of what is excluded is more of what is allowed.
            return None if re.search(r"\\[DW]", text) else text
        if not exact:
            return re.sub(r"\\.", lambda found: {r"\d": _DIGIT, r"\w": _LETTER}.get(found[0], found[0]), text)
    return text


def _is_small(token: re.Match[str]) -> bool:
    if token["least"] is None:
        return True
    least, most = int(token["least"]), int(token["most"] or token["least"])
    return least <= most <= MOST_REPEATS
