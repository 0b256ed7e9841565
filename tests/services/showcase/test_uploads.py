"""Uploads: pictures are judged before they are decoded, and nothing but their pixels is kept."""

import asyncio
import io
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.showcase.app import service
from services.showcase.images import MAX_JPEG_SCANS, ImageTooLarge, UnsupportedImage, render
from services.showcase.settings import Settings

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


async def test_an_upload_answers_the_picture_and_three_smaller_ones(showcase: Any, api: Any, make_picture: Any) -> None:
    answer = await showcase.upload(api.member(), make_picture((2000, 1000)))
    assert answer.status_code == 201
    stored = answer.json()
    assert (stored["width"], stored["height"]) == (2000, 1000)
    assert stored["thumbnails"].keys() == {"large", "medium", "small"}
    sizes = {}
    for name, url in {"original": stored["url"], **stored["thumbnails"]}.items():
        assert re.fullmatch(r"http://127\.0\.0\.1:8000/v1/uploads/files/[0-9a-f]{64}-[a-z]+\.jpg", url)
        served = await showcase.client.get(url)
        assert served.status_code == 200
        assert served.headers["content-type"] == "image/jpeg"
        assert served.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert served.headers["x-content-type-options"] == "nosniff"
        sizes[name] = Image.open(io.BytesIO(served.content)).size
    assert sizes == {"original": (2000, 1000), "large": (1600, 800), "medium": (800, 400), "small": (320, 160)}


async def test_exif_place_and_comment_are_gone_and_the_picture_is_upright(showcase: Any, api: Any) -> None:
    picture = Image.new("RGB", (80, 40), "white")
    picture.paste("red", (0, 0, 40, 40))
    answer = await showcase.upload(api.member(), with_exif(picture, 6))
    assert (answer.json()["width"], answer.json()["height"]) == (40, 80)
    served = (await showcase.client.get(answer.json()["url"])).content
    assert GPS_WORDS not in served
    assert b"Exif" not in served
    shown = Image.open(io.BytesIO(served))
    assert dict(shown.getexif()) == {}
    assert pixel(shown, 20, 20)[0] > 200  # the left half has become the upper one
    assert pixel(shown, 20, 20)[1] < 100


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


async def test_a_small_file_of_eighty_one_megapixels_is_refused_before_it_takes_memory(showcase: Any, api: Any) -> None:
    bomb = png(9000, 9000)
    assert len(bomb) < 11_000
    before = peak_memory(reset=True)
    refused = await showcase.upload(api.member(), bomb)
    assert (refused.status_code, refused.json()["code"]) == (422, "image_too_large")
    assert peak_memory() - before < 50
    assert await api.sql("SELECT 1 FROM upload") == []


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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        b"BM" + bytes(60),
        b"II*\x00\x08\x00\x00\x00",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"PK\x03\x04",
        b"\x00\x00\x00\x1cftypavif",
        b"\x00\x00\x00\x14ftypqt  ",
        b"RIFF\x00\x00\x00\x00WAVE",
    ],
)
async def test_anything_but_jpeg_png_webp_and_heic_is_unsupported(showcase: Any, api: Any, content: bytes) -> None:
    refused = await showcase.upload(api.member(), content)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_image")


async def test_cut_and_garbled_files_are_broken(showcase: Any, api: Any) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    for kind in ("JPEG", "PNG", "WEBP"):
        out = io.BytesIO()
        noise.save(out, kind)
        whole = out.getvalue()
        for broken in (whole[:14], whole[:40], whole[: len(whole) // 2], whole[:20] + bytes(len(whole) - 20)):
            refused = await showcase.upload(api.member(), broken)
            assert (refused.status_code, refused.json()["code"]) == (422, "broken_image"), (kind, len(broken))
    assert await api.sql("SELECT 1 FROM upload") == []


def test_a_jpeg_of_endless_scans_is_broken_before_it_is_decoded() -> None:
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(Exception, match="broken_image"):
        render(whole[:-2] + scan * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")


async def test_a_picture_that_is_also_a_page_an_archive_or_a_program_is_refused(showcase: Any, api: Any) -> None:
    noise = Image.effect_noise((120, 90), 60).convert("RGB")
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("Evil.class", b"x" * 99)
    stowaways = (
        b"<script>alert(document.cookie)</script>PK\x03\x04evil.jar",
        b"\r\n<!DOCTYPE HTML><body>",
        jar.getvalue(),
        b"\0" * 9 + b"%PDF-1.7",
        b"<?php system($_GET[0]); ?>",
        b"MZ\x90\0",
        b"\x7fELF\2",
        b"junk <SVG onload=alert(1)>",
        b"junk" + jar.getvalue(),
    )
    pictures = {"HEIF": (PICTURES / "turned.heic").read_bytes()}
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})):
        out = io.BytesIO()
        noise.save(out, kind, **options)
        pictures[f"{kind}{len(options)}"] = out.getvalue()
    for kind, picture in pictures.items():
        for stowaway in stowaways:
            with pytest.raises(UnsupportedImage):
                render(picture + stowaway)
        # What phones append is nobody's business: a second picture, a film, their own tables; it is not kept.
        for appended in (b"", b"\0" * 50, picture, b"\0\0\0\x18ftypmp42" + bytes(99), b"SEFHi\0\0\0SEFT"):
            assert render(picture + appended).width in {120, 64}, kind
    refused = await showcase.upload(api.member(), pictures["JPEG0"] + stowaways[0])
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_image")
    # Words inside the picture's own fields go with the fields, and all that is served is sealed off.
    out = io.BytesIO()
    noise.save(out, "JPEG", comment=b"<script>alert(1)</script>")
    served = await showcase.client.get((await showcase.upload(api.member(), out.getvalue())).json()["url"])
    assert b"script" not in served.content
    assert served.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_a_file_of_more_than_twenty_mebibytes_is_too_large(showcase: Any, api: Any, make_picture: Any) -> None:
    picture = make_picture()
    fits = await showcase.upload(api.member(), picture + bytes((20 << 20) - len(picture)))
    assert fits.status_code == 201
    for size in ((20 << 20) + 1, 30 << 20):
        refused = await showcase.upload(api.member(), picture + bytes(size - len(picture)))
        assert (refused.status_code, refused.json()["code"]) == (
            413,
            "file_too_large" if size < 21 << 20 else "payload_too_large",
        )
    assert len(await api.sql("SELECT 1 FROM upload")) == 1


async def test_what_is_no_form_with_a_file_says_what_to_send(showcase: Any, api: Any, make_picture: Any) -> None:
    member, url = api.member(), "/v1/uploads"
    refusals = [
        await showcase.client.post(url, headers=member),
        await showcase.client.post(url, headers=member, json={"file": "x"}),
        await showcase.client.post(url, headers=member, data={"file": "x"}),
        await showcase.client.post(url, headers=member, files={"picture": picture_file(make_picture())}),
        await showcase.client.post(
            url, headers=member, files=[("file", picture_file(b"a")), ("file", picture_file(b"b"))]
        ),
        await showcase.client.post(
            url, headers=member | {"Content-Type": "multipart/form-data; boundary=x"}, content=b"--x\r\nbroken"
        ),
        await showcase.client.post(url, headers=member | {"Content-Type": "multipart/form-data"}, content=b"--x"),
    ]
    assert [(refused.status_code, refused.json()["code"]) for refused in refusals] == [(422, "file_missing")] * 7
    anonymous = await showcase.client.post(url, files={"file": picture_file(make_picture())})
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "not_authenticated")


def picture_file(content: bytes) -> tuple[str, bytes, str]:
    """A part of a form."""
    return "../../etc/passwd\x00.png", content, "image/png"


async def test_only_names_we_gave_are_served(showcase: Any, api: Any, make_picture: Any) -> None:
    url = (await showcase.upload(api.member(), make_picture())).json()["url"]
    name = url.rsplit("/", 1)[1]
    for bad in (
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2f" + name,
        name + "%00.jpg",
        name.upper(),
        name.replace("original", "huge"),
        "0" * 64 + "-original.jpg",
        name + "%0a",
    ):
        refused = await showcase.client.get(f"/v1/uploads/files/{bad}")
        assert refused.status_code == 404, bad
    assert (await showcase.client.get(url)).status_code == 200


async def test_the_same_idempotency_key_stores_one_upload(showcase: Any, api: Any, make_picture: Any) -> None:
    member = api.member() | {"Idempotency-Key": "photo", "Content-Type": "multipart/form-data; boundary=x"}
    content = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + make_picture() + b"\r\n--x--\r\n"
    )
    first = await showcase.client.post("/v1/uploads", headers=member, content=content)
    again = await showcase.client.post("/v1/uploads", headers=member, content=content)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert len(await api.sql("SELECT 1 FROM upload")) == 1


async def test_ten_uploads_at_once_are_all_stored(showcase: Any, api: Any, make_picture: Any) -> None:
    contents = [make_picture((60 + n, 50)) for n in range(10)]
    answers = await asyncio.gather(*(showcase.upload(api.member(), content) for content in contents))
    assert [answer.json()["width"] for answer in answers] == [60 + n for n in range(10)]


async def test_more_uploads_than_can_wait_are_asked_to_come_back(run: Any, tmp_path: Path, make_picture: Any) -> None:
    async with run(service, data=tmp_path, image_workers=1, images_waiting=1) as api:

        async def bring() -> Any:
            files = {"file": picture_file(make_picture((1500, 1500)))}
            return await api.client.post("/v1/uploads", files=files, headers=api.member())

        answers = await asyncio.gather(*(bring() for _ in range(6)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes[0] == 201
        assert codes[-1] == 503
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.json()["code"] == "images_busy"
        assert int(busy.headers["retry-after"]) >= 1


def test_uploads_live_in_the_data_folder(tmp_path: Path) -> None:
    assert Settings(data=tmp_path).uploads == tmp_path / "uploads"


async def test_a_keyed_upload_holds_no_connection_while_its_picture_waits(showcase: Any, api: Any) -> None:
    room = api.rt.state["darkroom"]
    lit = threading.Event()
    for _ in range(room.threads._max_workers):
        room.threads.submit(lit.wait)
    try:
        upload = asyncio.create_task(showcase.upload(api.member(), **{"Idempotency-Key": "waits"}))
        while not room.inside:  # noqa: ASYNC110 - the darkroom tells nobody
            await asyncio.sleep(0.01)
        assert api.rt.db.engine.pool.checkedout() == 0
    finally:
        lit.set()
    assert (await upload).status_code == 201


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
async def test_files_that_wait_for_their_turn_do_so_on_disk(showcase: Any, api: Any) -> None:
    room = api.rt.state["darkroom"]
    lit = threading.Event()
    for _ in range(room.threads._max_workers):
        room.threads.submit(lit.wait)
    content, waiting = bytes(19 << 20), 8
    try:
        before = peak_memory(reset=True)
        uploads = [asyncio.create_task(showcase.upload(api.member(), content)) for _ in range(waiting)]
        while room.inside < waiting:  # noqa: ASYNC110 - the darkroom tells nobody
            await asyncio.sleep(0.05)
        assert peak_memory() - before < 70  # of 152 that were sent
    finally:
        lit.set()
    assert [answer.status_code for answer in await asyncio.gather(*uploads)] == [415] * waiting
