"""From a picture of any kind to plain pixels: first frame, EXIF orientation, transparency on white, scaled once.

Nothing but RGB values leaves here: neither EXIF data nor anything that another decoder could be attacked with.
"""

import resource
import warnings
from pathlib import Path
from typing import Any

from .analysis.image_file import MAX_PIXELS
from .limits import limit, limit_memory

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_ASPECT = 100
"""The longer side divided by the shorter one."""
DECODING_BYTES = 512 * 2**20
"""What decoding may allocate: 30 million pixels of four bytes, a converted copy of them, and the scaled one."""
SUGGESTION = "Save it as PNG or JPEG, or send a screenshot of it."


class PictureRefusedError(Exception):
    """The picture is not decoded. The message says why, and what to do."""


def decode(file: str, pixels: str, side: int) -> dict[str, Any]:
    """Write the RGB values of the picture `file` into the new file `pixels`, row by row, three bytes a pixel. A
    longer side is scaled to `side`.

    Returns `width` and `height` of what was written, `format`, `original_width`, `original_height`, `is_lossy`, and
    `notes`: what was changed or left out, in sentences. Or `refused`: why not. This process does nothing else.
    """
    limit_memory(DECODING_BYTES)
    limit(resource.RLIMIT_FSIZE, 3 * side * side)
    try:
        return _decoded(file, pixels, side)
    except PictureRefusedError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": f"Decoding it needs more than {DECODING_BYTES >> 20} MiB. Save it smaller."}
    except Exception as error:  # boundary: a hostile file makes any decoder fail
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return {"refused": f"It is damaged or cut off ({type(error).__name__}: {reason}). {SUGGESTION}"}


def _decoded(file: str, pixels: str, side: int) -> dict[str, Any]:
    from PIL import Image, UnidentifiedImageError

    # A bomb raises from twice this number on; the warning from here on is made an error.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise PictureRefusedError(
                f"It has more than {MAX_PIXELS:,} pixels. Save it smaller, or cut out the part in question."
            ) from None
        except UnidentifiedImageError:
            raise PictureRefusedError(
                f"It is none of {', '.join(FORMATS)}, whatever its name says. {SUGGESTION}"
            ) from None
        with image:
            return _written(image, pixels, side)


def _written(image: Any, pixels: str, side: int) -> dict[str, Any]:
    notes: list[str] = []
    kind = image.format
    width, height = image.size
    if not width or not height or max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureRefusedError(f"It is {width} x {height} pixels: too long and thin to be looked at. Cut it.")
    if getattr(image, "is_animated", False):
        notes.append("Only the first frame was taken.")
    if kind == "JPEG":
        # The decoder scales by 2, 4 or 8 itself, and stays above the size that is asked for.
        image.draft(None, (side, side))
    image.load()
    turned = _turned(image, notes)
    original = (height, width) if turned.size == image.size[::-1] != image.size else (width, height)
    flat = _rgb(turned, notes)
    if max(flat.size) > side:
        flat.thumbnail((side, side), reducing_gap=3.0)
    if flat.size != original:
        notes.append(f"It was scaled from {original[0]} x {original[1]} pixels.")
    with open(pixels, "xb") as out:
        out.write(flat.tobytes())
    return {
        "width": flat.width,
        "height": flat.height,
        "format": kind,
        "original_width": original[0],
        "original_height": original[1],
        "is_lossy": kind == "JPEG" or (kind == "WEBP" and image.mode == "RGB"),
        "notes": notes,
    }


def _turned(image: Any, notes: list[str]) -> Any:
    """The picture as its EXIF orientation says."""
    from PIL import ImageOps

    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # boundary: damaged EXIF data raises errors of any type, and the pixels are fine
        notes.append("Its EXIF data is damaged, so it may be turned.")
        return image
    return image if turned is None else turned


def _rgb(image: Any, notes: list[str]) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _stretched(image, notes)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        notes.append("Transparent parts are shown white.")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground.convert("RGB")
    return image.convert("RGB")


def _stretched(image: Any, notes: list[str]) -> Any:
    """16-bit and other large values as 8 bit, from black for the lowest to white for the highest. Pillow would cut
    off what is above 255, and most of a microscope's picture is."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.float32)
    finite = numpy.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    notes.append(f"Its values from {low:g} to {high:g} are shown from black to white.")
    scaled = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(numpy.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255).astype(numpy.uint8))


def described(file: str, width: int, height: int) -> dict[str, Any]:
    """Facts of the pixels in `file`, as `decode` writes them: `mean_colour` and `common_colours` as #rrggbb,
    `brightness` from 0 to 1, and `is_grey`."""
    import numpy

    values = numpy.frombuffer(Path(file).read_bytes(), numpy.uint8).reshape(height, width, 3)
    mean = values.reshape(-1, 3).mean(axis=0)
    # Four bits a channel: near colours count as one.
    coarse = values.reshape(-1, 3).astype(numpy.uint16) >> 4
    keys = (coarse[:, 0] << 8) | (coarse[:, 1] << 4) | coarse[:, 2]
    counts = numpy.bincount(keys, minlength=4096)
    common = []
    for key in numpy.argsort(counts)[::-1][:5]:
        share = counts[key] / keys.size
        if share >= 0.01:
            shown = values.reshape(-1, 3)[keys == key].mean(axis=0)
            common.append({"colour": _hex(shown), "share": round(float(share), 3)})
    spread = numpy.abs(values.astype(numpy.int16) - values[:, :, :1]).max()
    return {
        "mean_colour": _hex(mean),
        "common_colours": common,
        "brightness": round(float(mean @ (0.299, 0.587, 0.114)) / 255, 3),
        "is_grey": bool(spread <= 8),
    }


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{round(float(part)):02x}" for part in colour)
