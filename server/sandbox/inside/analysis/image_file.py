"""Images: PNG, JPEG, GIF, TIFF, WebP and BMP."""

import itertools
import warnings
from typing import Any

from .result import Analysis, Deadline, File, Refused, counted, cut

MAX_PIXELS = 30_000_000
"""Pillow takes up to four bytes a pixel, and the histogram some more."""
_FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")
_MAX_FRAMES = 500
_SCALED = 4_000_000
"""Pixels to which a JPEG is scaled while it is decoded."""


def analyse(file: File, kind: str) -> Analysis:
    """Size, mode, frames, EXIF, and a histogram of each channel."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(file.path, formats=_FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Refused(
                f"The image has more than {MAX_PIXELS:,} pixels. Save it smaller, or cut it into tiles."
            ) from error
        except UnidentifiedImageError as error:
            raise Refused("The image is damaged, or in a format that can't be read here.") from error
        with image:
            return _describe(file, image)


def _describe(file: File, image: Any) -> Analysis:
    skipped: list[str] = []
    width, height = image.size
    details: dict[str, Any] = {
        "format": image.format,
        "width": width,
        "height": height,
        "mode": image.mode,
        "dpi": [float(value) for value in image.info["dpi"]] if "dpi" in image.info else None,
        "transparency": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
        "exif": _exif(image, skipped),
        "frames": _frames(image, skipped),
    }
    try:
        image.seek(0)
        details |= _pixels(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        skipped.append(f"The pixels can't be read: the image is damaged or cut off ({cut(str(error), 100)}).")
    frames = details["frames"]
    more = f", {frames} frames" if frames and frames > 1 else ""
    summary = f"{image.format} image, {width} x {height} pixels, mode {image.mode}{more}"
    code = f"import numpy as np\nfrom PIL import Image\n\nwith Image.open({file.name!r}) as image:\n"
    code += "    pixels = np.asarray(image)"
    return Analysis("image", summary, details, code, skipped)


def _frames(image: Any, skipped: list[str]) -> int:
    """Counts the frames of a GIF or TIFF one by one: a hostile file links them in a circle."""
    deadline = Deadline(0.4)
    if not hasattr(image, "n_frames"):
        return 1
    for number in itertools.count(1):
        if number == _MAX_FRAMES or deadline.passed():
            skipped.append(f"Only the first {counted(number, 'frame')} were counted.")
            return number
        try:
            image.seek(number)
        except (EOFError, OSError, ValueError, SyntaxError):
            return number
    raise AssertionError("the count never ends")


def _exif(image: Any, skipped: list[str]) -> dict[str, Any]:
    from PIL import ExifTags

    try:
        entries = list(image.getexif().items())[:100]
    except (OSError, ValueError, SyntaxError, KeyError, TypeError) as error:
        skipped.append(f"The EXIF data is damaged: {cut(str(error), 100)}.")
        return {}
    described = {}
    for tag, value in entries:
        if not isinstance(value, bytes):
            described[ExifTags.TAGS.get(tag, str(tag))] = cut(str(value), 200)
    return described


def _pixels(image: Any) -> dict[str, Any]:
    """Minimum, maximum, mean and a histogram of 16 bins, by channel."""
    if image.format == "JPEG" and image.size[0] * image.size[1] > _SCALED:
        image.draft(image.mode, (image.size[0] // 2, image.size[1] // 2))
    image.load()
    shown = image.convert("RGBA" if "transparency" in image.info else "RGB") if image.mode == "P" else image
    names = shown.getbands()
    channels = [
        _channel(shown.getchannel(index) if len(names) > 1 else shown, name) for index, name in enumerate(names)
    ]
    return {"channels": [channel for channel in channels if channel]}


def _channel(image: Any, name: str) -> dict[str, Any]:
    """Empty if no value is finite."""
    import numpy

    limits: tuple[float, float] = (0, 256)
    if image.mode in ("L", "1"):  # Pillow counts these itself, much faster
        counts = numpy.asarray(image.histogram())
        values = numpy.arange(256)
        present = values[counts > 0]
        mean = float((values * counts).sum() / counts.sum())
        low, high, bins = int(present[0]), int(present[-1]), counts.reshape(16, 16).sum(axis=1)
    else:
        values = numpy.asarray(image).reshape(-1)
        values = values[numpy.isfinite(values)] if values.dtype.kind == "f" else values
        if not values.size:
            return {}
        low, high = values.min().item(), values.max().item()
        limits = (low, high if high > low else low + 1)
        mean = float(values.mean(dtype=numpy.float64))
        bins, _ = numpy.histogram(values, bins=16, range=limits)
    described = {"channel": name, "min": low, "max": high, "mean": mean, "histogram": bins.tolist()}
    return described | {"histogram_from": limits[0], "histogram_to": limits[1]}
