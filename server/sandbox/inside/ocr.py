"""Text in pictures, by RapidOCR with the weights of its package: https://github.com/RapidAI/RapidOCR

Only pixels come here, never a file that somebody made.
"""

import functools
from pathlib import Path
from typing import Any

from . import pixels

MODELS = {
    "Det.model_path": "PP-OCRv6_det_small.onnx",
    "Rec.model_path": "PP-OCRv6_rec_small.onnx",
    "Cls.model_path": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
"""Their paths are given, since the package downloads what it does not find."""
LONGEST_TEXT = 20_000
SURE = 0.5
"""Minimum score of a line."""
SAME_LINE = 0.5
"""Boxes are of one line if their heights overlap by this share of the lower one."""
FAR = 2.0
"""A gap of so many heights between two boxes of a line is a gap between columns."""
THREADS = 2


def read(file: str, width: int, height: int) -> dict[str, Any]:
    """The `text` in the pixels of `file`, a line a line, from top to bottom, and `facts` as `pixels.described` has
    them. Without the package, `missing` says so and there is no text."""
    facts = pixels.described(file, width, height)
    try:
        engine = _engine()
    except ImportError as error:
        return {"text": "", "facts": facts, "missing": f"{error}"[:200]}
    import numpy

    values = numpy.frombuffer(Path(file).read_bytes(), numpy.uint8).reshape(height, width, 3)
    found = engine(values[:, :, ::-1])
    if found.boxes is None or found.txts is None:
        return {"text": "", "facts": facts, "missing": ""}
    boxes = [
        (float(box[:, 0].min()), float(box[:, 1].min()), float(box[:, 0].max()), float(box[:, 1].max()), str(text))
        for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
        if score >= SURE and str(text).strip()
    ]
    return {"text": joined(boxes)[:LONGEST_TEXT], "facts": facts, "missing": ""}


Box = tuple[float, float, float, float, str]
"""Left, top, right, bottom, text."""


def joined(boxes: list[Box]) -> str:
    """The texts of the boxes as lines. A detector often splits a line at its gaps, and the gap is then a space:
    https://github.com/RapidAI/RapidOCR/issues/723"""
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda one: (one[1] + one[3]) / 2):
        line = next((line for line in reversed(lines[-3:]) if _are_level(line, box)), None)
        if line is None:
            lines.append([box])
        else:
            line.append(box)
    return "\n".join(_line(sorted(line)) for line in lines)


def _are_level(line: list[Box], box: Box) -> bool:
    top, bottom = min(one[1] for one in line), max(one[3] for one in line)
    overlap = min(bottom, box[3]) - max(top, box[1])
    return overlap > SAME_LINE * min(bottom - top, box[3] - box[1])


def _line(boxes: list[Box]) -> str:
    text, end = "", None
    for left, top, right, bottom, words in boxes:
        if end is not None:
            text += "   " if left - end > FAR * (bottom - top) else " "
        text, end = text + words.strip(), right
    return text


@functools.cache
def _engine() -> Any:
    """Raises ImportError where rapidocr or onnxruntime is not installed."""
    import onnxruntime  # noqa: F401 - rapidocr would only log that it is missing
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
    settings: dict[str, Any] = {name: str(folder / file) for name, file in MODELS.items()}
    return rapidocr.RapidOCR(
        params={
            **settings,
            "Global.log_level": "error",
            "Global.use_cls": False,
            # The picture is as large as it is to be read.
            "Global.max_side_len": 4096,
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
