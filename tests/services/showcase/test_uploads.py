"""Uploads: pictures are judged before they are decoded, and nothing but their pixels is kept."""

import asyncio
import io
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.showcase.app import service
from services.showcase.images import UnsupportedImage, render
from services.showcase.settings import Settings
from tests.services.showcase.test_images import GPS_WORDS, PICTURES, peak_memory, pixel, png, with_exif


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
        assert served.headers["etag"] == f'"{url.rsplit("/", 1)[1]}"'
        tag, part = served.headers["etag"], served.content[:10]
        for held, told in ((tag, (304, b"")), (f'"x", W/{tag}', (304, b"")), ('"x"', (206, part))):
            again = await showcase.client.get(url, headers={"If-None-Match": held, "Range": "bytes=0-9"})
            assert (again.status_code, again.content, again.headers["etag"]) == (*told, tag)
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


async def test_a_small_file_of_eighty_one_megapixels_is_refused_before_it_takes_memory(showcase: Any, api: Any) -> None:
    bomb = png(9000, 9000)
    assert len(bomb) < 11_000
    before = peak_memory(reset=True)
    refused = await showcase.upload(api.member(), bomb)
    assert (refused.status_code, refused.json()["code"]) == (422, "image_too_large")
    assert peak_memory() - before < 50
    assert await api.sql("SELECT 1 FROM upload") == []


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
    member = api.member() | {"Idempotency-Key": "photo"}
    picture, other = make_picture(), make_picture((90, 50))
    # Each form has a boundary of its own, also the retry's.
    first, again = [
        await showcase.client.post("/v1/uploads", headers=member, files={"file": picture}) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    reused = await showcase.client.post("/v1/uploads", headers=member, files={"file": other})
    assert reused.json()["code"] == "idempotency_key_reused"
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
