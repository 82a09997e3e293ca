"""XML in general, SVG included."""

from collections import Counter
from typing import Any

from .encoding import Encoding
from .result import Analysis, Deadline, File, Refused, counted, cut

_MAX_DEPTH = 500
_MAX_NAMES = 200
_MAX_TEXT = 1024 * 1024


def analyse(file: File, encoding: Encoding) -> Analysis:
    """The root, the paths of elements with their number, and examples. Entities are refused, not expanded."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    deadline, skipped = Deadline(1.0), []
    paths: Counter[str] = Counter()
    examples: dict[str, str] = {}
    attributes: dict[str, list[str]] = {}
    stack: list[Any] = []
    names: list[str] = []
    root = ""
    try:
        for event, element in iterparse(file.path, events=("start", "end"), forbid_dtd=False, forbid_entities=True):
            if event == "start":
                stack.append(element)
                names.append(cut(element.tag.rpartition("}")[2], 60))
                root = root or names[0]
                if len(stack) > _MAX_DEPTH:
                    raise Refused(f"The XML is nested more than {_MAX_DEPTH} levels deep.")
                path = "/".join(names[:12])
                if path in paths or len(paths) < _MAX_NAMES:
                    paths[path] += 1
                    attributes.setdefault(path, [cut(name, 40) for name in list(element.attrib)[:10]])
            else:
                path = "/".join(names[:12])
                if element.text and element.text.strip() and path in paths and path not in examples:
                    examples[path] = cut(" ".join(element.text[:200].split()), 80)
                stack.pop()
                names.pop()
                # Only what is open stays in memory.
                element.clear()
                if stack:
                    stack[-1].remove(element)
            if deadline.passed():
                skipped.append(f"Read up to element {paths.total():,}, for lack of time.")
                break
    except DefusedXmlException as error:
        raise Refused("The XML declares entities, which can be made to fill memory. Save it without them.") from error
    except ParseError as error:
        raise Refused(f"The XML is broken or cut off: {error}.") from error
    if len(paths) == _MAX_NAMES:
        skipped.append(f"More than {_MAX_NAMES} different paths: the rest is left out.")
    described = [
        {"path": path, "count": number}
        | ({"example": examples[path]} if path in examples else {})
        | ({"attributes": attributes[path]} if attributes[path] else {})
        for path, number in paths.items()
    ]
    kind = "svg" if root == "svg" else "xml"
    details = {"root": root, "element_count": paths.total(), "paths": described}
    code = f"from defusedxml import ElementTree\n\nroot = ElementTree.parse({file.name!r}).getroot()"
    name = "SVG drawing" if kind == "svg" else f"XML with the root {root}"
    return Analysis(kind, f"{name}, {counted(paths.total(), 'element')}", details, code, skipped)
