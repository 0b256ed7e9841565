"""Pictures of cakes for a contest, drawn here: small, warm, and each with colours of its own."""

import io
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 960, 720
MIDDLE = WIDTH // 2


def cake(wall: str, table: str, sponge: str, cream: str, fruit: str) -> bytes:
    """A layer cake on a stand as a JPEG, in five colours."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), wall)
    light = Image.new("L", (WIDTH, HEIGHT), 0)
    ImageDraw.Draw(light).ellipse((MIDDLE - 420, -160, MIDDLE + 420, 560), fill=150)
    picture.paste("#fffaf0", mask=light.filter(ImageFilter.GaussianBlur(120)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 560, WIDTH, HEIGHT), fill=table)
    draw.ellipse((MIDDLE - 250, 596, MIDDLE + 250, 656), fill=_darker(table))
    draw.polygon([(MIDDLE - 30, 560), (MIDDLE + 30, 560), (MIDDLE + 90, 640), (MIDDLE - 90, 640)], fill="#efe6da")
    draw.ellipse((MIDDLE - 300, 510, MIDDLE + 300, 590), fill="#fbf6ee", outline="#e2d5c3", width=4)
    for bottom, half in ((545, 220), (430, 205)):
        _layer(draw, bottom, half, sponge, cream)
    _icing(draw, 316, 205, cream)
    for place in range(-2, 3):
        _berry(draw, MIDDLE + place * 74, 282 - 12 * (2 - abs(place)), fruit)
    small = picture.filter(ImageFilter.GaussianBlur(0.7))
    held = io.BytesIO()
    small.save(held, "JPEG", quality=86)
    return held.getvalue()


def _darker(colour: str) -> tuple[int, ...]:
    return tuple(int(int(colour[at : at + 2], 16) * 0.82) for at in (1, 3, 5))


def _layer(draw: ImageDraw.ImageDraw, bottom: int, half: int, sponge: str, cream: str) -> None:
    top = bottom - 115
    draw.ellipse((MIDDLE - half, bottom - 30, MIDDLE + half, bottom + 22), fill=_darker(sponge))
    draw.rounded_rectangle((MIDDLE - half, top, MIDDLE + half, bottom), radius=16, fill=sponge)
    for stripe in (0, 46):
        draw.rectangle((MIDDLE - half, top + 28 + stripe, MIDDLE + half, top + 44 + stripe), fill=cream)
    for row, column in ((row, column) for row in range(2) for column in range(14)):
        across = MIDDLE - half + 16 + column * (2 * half - 30) // 13 + row * 7
        draw.ellipse((across, top + 52 + row * 44, across + 7, top + 57 + row * 44), fill=_darker(sponge))


def _icing(draw: ImageDraw.ImageDraw, top: int, half: int, cream: str) -> None:
    draw.ellipse((MIDDLE - half, top - 34, MIDDLE + half, top + 34), fill=cream)
    edges = range(-half, half + 1, half * 2 // 8)
    for turn, (left, right) in enumerate(pairwise(edges)):
        drop = top + (62, 38, 84, 48)[turn % 4]
        draw.rounded_rectangle(
            (MIDDLE + left, top - 4, MIDDLE + right + 2, drop), radius=(right - left) // 2, fill=cream
        )


def _berry(draw: ImageDraw.ImageDraw, across: int, down: int, fruit: str) -> None:
    draw.ellipse((across - 34, down - 32, across + 34, down + 34), fill=fruit)
    draw.ellipse((across - 18, down - 22, across - 4, down - 8), fill="#ffffff")
    draw.line((across, down - 32, across + 12, down - 62), fill="#5c6b2f", width=5)
