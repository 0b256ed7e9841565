"""Images: every format and mode ends upright and small, what is broken or too large is refused, memory is bounded."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from services.showcase.images import MAX_JPEG_SCANS, ImageTooLarge, UnsupportedImage, render

GPS_WORDS = b"GPSLatitudeSecret"
PICTURES = Path(__file__).parent / "pictures"


def png(width: int, height: int, *, body: bytes = b"") -> bytes:
    """A one-bit PNG of any size in a few kilobytes; `body` replaces its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = body or zlib.compress(b"\0" * ((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_exif(picture: Image.Image, orientation: int) -> bytes:
    """A JPEG that says how to hold it, where it was taken and by whom."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = GPS_WORDS.decode()
    exif.get_ifd(0x8825)[2] = (31.0, 13.0, 49.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", exif=exif, comment=GPS_WORDS, quality=95)
    return out.getvalue()


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    """The channels of one pixel."""
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_ends_upright(orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 16, 16))
    turned = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    shown = Image.open(io.BytesIO(render(with_exif(turned, orientation)).sizes["original"]))
    assert shown.size == (64, 32)
    corners = [pixel(shown, *place) for place in ((4, 4), (60, 4), (4, 28), (60, 28))]
    assert [green < 100 for _, green, *_ in corners] == [True, False, False, False]


@pytest.mark.parametrize(
    ("kind", "mode", "suffix"),
    [
        ("JPEG", "RGB", "jpg"),
        ("JPEG", "L", "jpg"),
        ("JPEG", "CMYK", "jpg"),
        ("PNG", "RGB", "jpg"),
        ("PNG", "1", "jpg"),
        ("PNG", "P", "jpg"),
        ("PNG", "LA", "jpg"),
        ("PNG", "I;16", "jpg"),
        ("PNG", "RGBA", "jpg"),
        ("WEBP", "RGB", "jpg"),
    ],
)
def test_every_mode_of_the_three_formats_is_taken(kind: str, mode: str, suffix: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), "white").convert(mode).save(out, kind)
    stored = render(out.getvalue())
    assert (stored.width, stored.height, stored.suffix) == (30, 20, suffix)


def test_a_transparent_picture_stays_transparent_as_webp(make_picture: Callable[..., bytes]) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (30, 20), (255, 0, 0, 100)).save(out, "PNG")
    stored = render(out.getvalue())
    assert stored.suffix == "webp"
    shown = Image.open(io.BytesIO(stored.sizes["original"]))
    assert (shown.format, shown.mode, pixel(shown, 5, 5)[3]) == ("WEBP", "RGBA", 100)


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    out = io.BytesIO()
    Image.new("I;16", (20, 20), 128 * 256).save(out, "PNG")
    shown = Image.open(io.BytesIO(render(out.getvalue()).sizes["original"])).convert("RGB")
    assert abs(pixel(shown, 10, 10)[0] - 128) < 3


def test_a_heic_as_phones_take_it_is_upright_and_says_nothing_of_its_place() -> None:
    taken = (PICTURES / "turned.heic").read_bytes()
    assert GPS_WORDS in taken
    stored = render(taken)
    assert (stored.width, stored.height, stored.suffix) == (64, 128, "jpg")
    assert all(GPS_WORDS not in encoded and b"Exif" not in encoded for encoded in stored.sizes.values())
    shown = Image.open(io.BytesIO(stored.sizes["original"]))
    assert (shown.format, dict(shown.getexif())) == ("JPEG", {})
    assert [pixel(shown, 32, y)[1] < 100 for y in (10, 50, 78, 118)] == [True, True, False, False]
    glass = render((PICTURES / "glass.heic").read_bytes())
    assert (glass.width, glass.suffix) == (64, "webp")


def test_a_heic_that_is_cut_garbled_or_lies_about_its_size_is_refused() -> None:
    taken = (PICTURES / "turned.heic").read_bytes()
    for broken in (taken[:16], taken[:100], taken[:-20], taken[:40] + bytes(len(taken) - 40)):
        with pytest.raises(Exception, match="broken_image"):
            render(broken)
    size = taken.index(b"ispe") + 8
    for width, height in ((8001, 6250), (2**31, 2**31), (2**32 - 1, 1)):
        with pytest.raises(Exception, match=r"image_too_large|broken_image"):
            render(taken[:size] + struct.pack(">II", width, height) + taken[size + 8 :])
    # Of another codec in the same container, a sequence, and what only begins like one.
    for other in (b"avif" + bytes(4) + b"avifmif1", b"mif1" + bytes(4) + b"mif1avif", b"hevc" + bytes(4) + b"hevcheic"):
        with pytest.raises(UnsupportedImage):
            render(struct.pack(">I", 24) + b"ftyp" + other + taken[24:])


def peak_memory(*, reset: bool = False) -> int:
    """The most memory this process has held since the last reset, in MiB."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_the_largest_picture_allowed_takes_less_than_four_hundred_megabytes() -> None:
    before = peak_memory(reset=True)
    stored = render(png(8000, 6250))
    assert (stored.width, stored.height) == (4000, 3125)
    assert peak_memory() - before < 400


@pytest.mark.parametrize("size", [(50_000_001, 1), (65_535, 65_535), (8001, 6250), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_counted_whatever_the_shape(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge):
        render(png(*size, body=zlib.compress(b"")))


def test_a_jpeg_of_endless_scans_is_broken_before_it_is_decoded() -> None:
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(Exception, match="broken_image"):
        render(whole[:-2] + scan * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")
