"""Pictures are decoded, turned upright and written anew; nothing of the uploaded file itself is kept."""

import io
import struct
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import Image, ImageCms

from kit.errors import Unprocessable, UnsupportedMedia
from services.showcase.polyglots import is_polyglot

MAX_PIXELS: Final = 50_000_000
# libwebp's decoder holds the canvas four times over (measured: 15 bytes a pixel), so that 50 megapixels took 750 MB.
MAX_WEBP_PIXELS: Final = 25_000_000
# Pictures above this are rendered one at a time: each may hold 300 MB.
LARGE_PIXELS: Final = 12_500_000
LONGEST_SIDE: Final = 4096
THUMBNAILS: Final = {"large": 1600, "medium": 800, "small": 320}
QUALITY: Final = 85
STRIP_PIXELS: Final = 1 << 20
# A progressive JPEG of empty scans costs a pass over the whole picture for every few bytes; cameras write about ten.
MAX_JPEG_SCANS: Final = 100

ORIENTATION: Final = 0x0112
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_large = threading.Lock()
# Still pictures in HEVC, as phones take them: a brand of its own, or `mif1` that names it among those it fits.
HEIC_BRANDS: Final = (b"heic", b"heix")
BRANDS_WITHIN: Final = 64
# What Pillow and the libraries under it raise for a file that is not what its first bytes promise.
BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class UnsupportedImage(UnsupportedMedia):
    """Only JPEG, PNG, WebP and HEIC pictures are taken, with nothing else in the file; save it anew as one of these."""

    zh = "只支持 JPEG、PNG、WebP 和 HEIC 图片，文件里也不能夹带其他内容，请另存为图片后再上传。"


class BrokenImage(Unprocessable):
    """This picture is damaged or cut off; export it again and upload the new file."""

    zh = "图片已损坏或不完整，请重新导出后再上传。"
    loc = ("body", "file")


class ImageTooLarge(Unprocessable):
    """This picture has more than 50 megapixels, or 25 as WebP; make it smaller and upload it again."""

    zh = "图片超过 5000 万像素（WebP 为 2500 万），请缩小后再上传。"
    loc = ("body", "file")


@dataclass(frozen=True, slots=True)
class Picture:
    """One upload, ready to store: the picture and its thumbnails as encoded bytes, all of one type."""

    width: int
    height: int
    suffix: str
    sizes: dict[str, bytes]


def format_of(content: bytes) -> str:
    """JPEG, PNG, WEBP or HEIF by the first bytes, whatever the file calls itself; raises UnsupportedImage."""
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp" and _is_heic(content):
        return "HEIF"
    raise UnsupportedImage


def _is_heic(content: bytes) -> bool:
    """By the brands of its first box (ISO/IEC 23008-12 10.2); AVIF and sequences of pictures have others."""
    end = min(int.from_bytes(content[:4], "big"), BRANDS_WITHIN)
    fits = {content[start : start + 4] for start in range(16, end, 4)}
    return content[8:12] in HEIC_BRANDS or (content[8:12] == b"mif1" and not fits.isdisjoint(HEIC_BRANDS))


@cache
def _teach_heic() -> None:
    """Let Pillow read HEIC; loaded with the first one, because it takes a tenth of a second."""
    from pi_heif import register_heif_opener  # noqa: PLC0415 - as above

    # One thread a picture, as for the other formats; what else lies in the file is not looked at.
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def render(content: bytes) -> Picture:
    """Decode, judge and re-encode one file; CPU-bound, for a worker thread.

    Raises UnsupportedImage, ImageTooLarge (before anything is decoded) or BrokenImage.
    """
    kind = format_of(content)
    if is_polyglot(content, kind):
        raise UnsupportedImage
    if kind == "JPEG" and content.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise BrokenImage
    if kind == "HEIF":
        _teach_heic()
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            pixels = image.width * image.height
            if pixels > (MAX_WEBP_PIXELS if kind == "WEBP" else MAX_PIXELS):
                raise ImageTooLarge
            # The container of HEIC says how to turn it, and its decoder has: EXIF repeats it.
            turn = None if kind == "HEIF" else _orientation(image)
            with _one_large if pixels > LARGE_PIXELS else nullcontext():
                shrunk = _shrunk(image)
            picture = _in_srgb(shrunk, image.info.get("icc_profile"))
        return _encoded(picture.transpose(turn) if turn is not None else picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        raise ImageTooLarge from bomb
    except BROKEN as broken:
        raise BrokenImage from broken


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except BROKEN:
        return None  # unreadable EXIF is no reason to refuse a good picture


def _shrunk(image: Image.Image) -> Image.Image:
    """The picture as RGB or RGBA, no side over LONGEST_SIDE, divided by a whole number.

    It is worked through in strips: a conversion of the whole would hold a 50-megapixel picture in memory twice.
    """
    transparent = image.has_transparency_data
    mode = "RGBA" if transparent else "RGB"
    factor = -(-max(image.size) // LONGEST_SIDE)
    # JPEG can be decoded at a half, a quarter or an eighth for a fraction of the time and memory.
    image.draft(None, (image.width // factor, image.height // factor))
    image.load()
    width, height = image.size
    factor = -(-max(width, height) // LONGEST_SIDE)
    target = Image.new(mode, (-(-width // factor), -(-height // factor)))
    step = factor * max(1, STRIP_PIXELS // width // factor)
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        if strip.mode.startswith("I"):
            strip = strip.convert("I").point(lambda value: value / 256).convert("L")
        target.paste(strip.convert(mode).reduce(factor), (0, top // factor))
    if transparent and target.getchannel("A").getextrema() == (255, 255):
        target = target.convert("RGB")
    target.info = {}
    return target


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, *BROKEN):
        return picture  # a profile for another colour space, or a broken one: the numbers are taken as sRGB
    if converted is None:
        return picture
    converted.info = {}
    return converted


def _encoded(picture: Image.Image) -> Picture:
    sizes = {"original": _bytes(picture)}
    smaller = picture
    for name, side in THUMBNAILS.items():
        if max(smaller.size) > side:
            scale = side / max(smaller.size)
            size = (max(1, round(smaller.width * scale)), max(1, round(smaller.height * scale)))
            smaller = smaller.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        sizes[name] = _bytes(smaller)
    return Picture(picture.width, picture.height, "webp" if picture.mode == "RGBA" else "jpg", sizes)


def _bytes(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    if picture.mode == "RGBA":
        picture.save(out, "WEBP", quality=QUALITY, method=4)
    else:
        picture.save(out, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return out.getvalue()
