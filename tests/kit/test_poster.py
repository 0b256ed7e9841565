"""Posters: words that the font has, lines that fit, and a code that reads."""

import segno
from PIL import Image, ImageFont

from kit import poster


def modules(picture: Image.Image) -> list[list[bool]]:
    """The dark modules of the one QR code in a picture, found by its white square."""
    white = picture.convert("L").point(lambda level: 255 if level > 253 else 0)
    left, top, right, _ = white.getbbox() or (0, 0, 0, 0)
    square = picture.convert("L").crop((left, top, right, top + right - left))
    count = next(n for n in range(29, 80, 4) if square.width % n == 0 and square.width // n > 3)
    step = square.width // count
    return [
        [square.getpixel((x * step + step // 2, y * step + step // 2)) == 0 for x in range(4, count - 4)]
        for y in range(4, count - 4)
    ]


def test_the_font_draws_what_people_write_and_marks_what_it_cannot() -> None:
    written = "草莓蛋糕，外婆教的「戚风」——Café №1（喆堃玥）！ 〇囍"
    assert poster.drawable(written) == written
    assert poster.drawable("好🍓吃👩‍🍳️") == "好吃"
    assert poster.drawable("龘") == poster.MISSING
    assert (poster.FONT.parent / "OFL.txt").exists()
    assert isinstance(poster.font(40), ImageFont.FreeTypeFont)


def test_text_is_broken_to_its_width_and_ends_in_an_ellipsis() -> None:
    lines = poster._broken("草莓蛋糕" * 20, 40, 400, 2)
    assert [len(line) for line in lines] == [10, 10]
    assert lines[1].endswith("…")
    assert all(poster.font(40).getlength(line) <= 400 for line in lines)
    assert poster._broken("短", 40, 400, 2) == ["短"]


def test_the_code_on_a_sheet_is_the_address() -> None:
    sheet = poster.Poster(600, 600)
    url = "https://h5.example/w/01990d3f-6c00-7000-8000-00000000cafe?invite_code=23456789ABCD"
    sheet.code((300, 300), url, 300)
    sheet.picture((0, 24), Image.new("RGB", (50, 90), "tomato"), (60, 60))
    expected = segno.make(url, error="m", micro=False, boost_error=False).matrix
    assert modules(sheet.image) == [[bool(module) for module in row] for row in expected]
