"""Posters: paper with pictures, words in any common Chinese character, and a QR code, as PNG."""

import io
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import segno
from PIL import Image, ImageDraw, ImageFont, ImageOps

FONT: Final = Path(__file__).parent / "fonts" / "NotoSansSC.otf"
"""Noto Sans SC cut to GB 2312, Latin 1, full-width forms and what names are written with: 7,700 characters in 1.6 MB."""

PAPER, INK, ACCENT = "#fff7ec", "#3b2417", "#c8642b"
MISSING: Final = "〓"
EMOJI: Final = 0x1F000
# Joiners and selectors, which say something of an emoji.
_ASIDE: Final = frozenset("\u200b\u200d\ufe0e\ufe0f")


class Poster:
    """A sheet to draw on; positions and sizes are pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.pen.rectangle((0, 0, width, 24), fill=ACCENT)

    def words(self, at: tuple[int, int], text: str, size: int, colour: str = INK, *, anchor: str = "mm") -> None:
        """One line of text; `anchor` as Pillow has it: `mm` is centred, `lm` begins there."""
        self.pen.text(at, drawable(text), font=font(size), fill=colour, anchor=anchor)

    def paragraph(self, at: tuple[int, int], text: str, size: int, width: int, lines: int) -> None:
        """Text broken at any character, beginning at the upper left; what does not fit ends in an ellipsis."""
        for number, line in enumerate(_broken(drawable(text), size, width, lines)):
            self.pen.text((at[0], at[1] + number * size * 3 // 2), line, font=font(size), fill=INK)

    def picture(self, at: tuple[int, int], picture: Image.Image, size: tuple[int, int]) -> None:
        """A picture, cut to this size from its middle."""
        self.image.paste(ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.LANCZOS), at)

    def code(self, middle: tuple[int, int], url: str, box: int) -> None:
        """A QR code as large as fits into a square of `box`, around its middle."""
        square = qr(url, box)
        self.image.paste(square, (middle[0] - square.width // 2, middle[1] - square.height // 2))

    def png(self, colours: int = 64) -> bytes:
        """The sheet as PNG, in so many colours; 256 for photographs."""
        out = io.BytesIO()
        self.image.quantize(colours).save(out, "PNG")
        return out.getvalue()


def qr(url: str, box: int) -> Image.Image:
    """The QR code of an address."""
    # Level M with its quiet zone survives being photographed from a screen; modules of whole pixels stay sharp.
    code = segno.make(url, error="m", micro=False, boost_error=False)
    drawn = io.BytesIO()
    code.save(drawn, kind="png", scale=max(1, box // code.symbol_size(border=4)[0]), border=4)
    with Image.open(drawn) as picture:
        return picture.convert("RGB")


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font in pixels."""
    return ImageFont.truetype(FONT, size)


def drawable(text: str) -> str:
    """The text with a mark in place of each character that the font does not have; emoji are left out."""
    return "".join(_drawable(character) for character in text)


@lru_cache(maxsize=8192)
def _drawable(character: str) -> str:
    if character == " ":
        return character
    if character in _ASIDE or ord(character) >= EMOJI or character < " ":
        return ""
    return MISSING if bytes(font(24).getmask(character)) == _unknown() else character


@cache
def _unknown() -> bytes:
    """How the font draws what it does not have."""
    return bytes(font(24).getmask("\ue000"))


def _broken(text: str, size: int, width: int, lines: int) -> list[str]:
    broken = [""]
    for character in text:
        if font(size).getlength(broken[-1] + character) > width:
            if len(broken) == lines:
                while broken[-1] and font(size).getlength(broken[-1] + "…") > width:
                    broken[-1] = broken[-1][:-1]
                broken[-1] += "…"
                return broken
            broken.append("")
        broken[-1] += character
    return broken
