"""Playback: signed links that stream with Range, and end when they should."""

import re
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from kit import clock
from kit.ids import new_id
from services.courses.app import service
from tests.harness import Api, Run
from tests.services.courses.world import add_course, add_lesson, membership, segment


@pytest.fixture
async def playback(api: Api) -> dict[str, Any]:
    lesson = (await add_course(api))["lessons"][0]
    shown: dict[str, Any] = (await api.client.get(f"/v1/lessons/{lesson['id']}")).json()["playback"]
    return shown


async def test_a_link_streams_the_whole_file_without_a_login(api: Api, playback: dict[str, Any]) -> None:
    assert playback["url"].startswith("http://127.0.0.1:8000/v1/lessons/")
    answer = await api.client.get(playback["url"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] in ("audio/x-wav", "audio/wav", "audio/vnd.wave")
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.content[:4] == b"RIFF"
    assert len(answer.content) == 44 + 8000 * 3 * 2


async def test_a_range_is_answered_in_part(api: Api, playback: dict[str, Any]) -> None:
    whole = (await api.client.get(playback["url"])).content
    answer = await api.client.get(playback["url"], headers={"Range": "bytes=100-199"})
    assert (answer.status_code, answer.content) == (206, whole[100:200])
    assert answer.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    last = await api.client.get(playback["url"], headers={"Range": "bytes=-10"})
    assert (last.status_code, last.content) == (206, whole[-10:])
    beyond = await api.client.get(playback["url"], headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_outside")
    assert beyond.headers["content-type"] == "application/problem+json"
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"
    for unreadable in ("bytes", "lines=1-2", "bytes=x-y", "bytes=9-2"):
        answer = await api.client.get(playback["url"], headers={"Range": unreadable})
        assert (answer.status_code, answer.content) == (200, whole), unreadable


async def test_a_link_runs_out(api: Api, playback: dict[str, Any]) -> None:
    expires = int(parse_qs(urlsplit(playback["url"]).query)["expires"][0])
    assert timedelta(minutes=119) < timedelta(seconds=expires - clock.now().timestamp()) <= timedelta(hours=2)
    api.clock.advance(timedelta(hours=2))
    answer = await api.client.get(playback["url"])
    assert (answer.status_code, answer.json()["code"]) == (403, "playback_link_invalid")


async def test_a_link_ends_with_the_membership(api: Api) -> None:
    lesson = (await add_course(api, access="member"))["lessons"][0]
    member_id, now = new_id(), clock.now()
    await api.handle(membership(member_id, segment(now, 1)))
    api.clock.set(now + timedelta(hours=23))
    shown = (await api.client.get(f"/v1/lessons/{lesson['id']}", headers=api.member(member_id))).json()["playback"]
    assert shown["expires_at"] == f"{now + timedelta(days=1):%Y-%m-%dT%H:%M:%S}Z"
    api.clock.set(now + timedelta(days=1))
    assert (await api.client.get(shown["url"])).status_code == 403


async def test_a_forged_link_is_refused(api: Api, playback: dict[str, Any]) -> None:
    address = urlsplit(playback["url"])
    expires = parse_qs(address.query)["expires"][0]
    for signature in ("", "0" * 64, "中文", "\x00", "é" * 64):
        forged = await api.client.get(address.path, params={"expires": expires, "signature": signature})
        assert (forged.status_code, forged.json()["code"]) == (403, "playback_link_invalid")
    good = parse_qs(address.query)["signature"][0]
    later = await api.client.get(address.path, params={"expires": int(expires) + 1, "signature": good})
    assert later.status_code == 403
    elsewhere = await api.client.get(f"/v1/lessons/{new_id()}/media", params={"expires": expires, "signature": good})
    assert elsewhere.status_code == 403


async def test_a_lesson_plays_its_own_file(api: Api) -> None:
    folder: Path = api.rt.settings.media
    (folder / "fold.mp4").write_bytes(b"film" * 10)
    course = await add_course(api)
    lesson = await add_lesson(api, course["id"], media="fold.mp4")
    url = (await api.client.get(f"/v1/lessons/{lesson['id']}")).json()["playback"]["url"]
    answer = await api.client.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"film" * 10, "video/mp4")
    (folder / "fold.mp4").unlink()
    gone = await api.client.get(url)
    assert (gone.status_code, gone.json()["code"]) == (404, "media_missing")
    (folder / "fold.mp4").write_bytes(b"film")
    assert (await api.client.get(url)).status_code == 200
    await api.client.delete(f"/v1/admin/courses/{course['id']}", headers=api.admin())
    assert (await api.client.get(url)).status_code == 404


async def test_media_names_stay_in_their_folder(api: Api) -> None:
    course = await add_course(api)
    for media in ("../secret", "/etc/passwd", "a/b", ".hidden", "", "a\\b", "a\n", "x" * 201, 5):
        body = {"title": "t", "duration_s": 60, "media": media}
        answer = await api.client.post(f"/v1/admin/courses/{course['id']}/lessons", json=body, headers=api.admin())
        assert answer.status_code == 422, media


async def test_production_has_no_demo_recording(run: Run, tmp_path: Path) -> None:
    async with run(service, data=tmp_path, env="production") as api:
        lesson = (await add_course(api))["lessons"][0]
        answer = await api.client.get(f"/v1/lessons/{lesson['id']}")
        assert (answer.status_code, answer.json()["playback"]) == (200, None)
        assert not (tmp_path / "media").exists()


class Store(BaseHTTPRequestHandler):
    """As much of an S3-compatible store as media need; the signature of a link is the store's own matter."""

    files: ClassVar[dict[str, bytes]] = {}
    status = 200

    def do_PUT(self) -> None:
        """Keep."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.status == 200:
            self.files[self.path] = content
        self._answer(self.status)

    def do_POST(self) -> None:
        """Delete several, which is how the client deletes one."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        gone = re.findall("<Key>(.*?)</Key>", body)
        for key in gone:
            self.files.pop(f"/films/{key}", None)
        said = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in gone)
        self._answer(200, f"<DeleteResult>{said}</DeleteResult>".encode())

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def store() -> Iterator[str]:
    Store.files, Store.status = {}, 200
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_bucket_is_read_by_presigned_links(run: Run, tmp_path: Path, store: str) -> None:
    keys = {"bucket_access_key": "AKIAIOSFODNN7EXAMPLE", "bucket_secret_key": "secret", "bucket_region": "cn-east-1"}
    where = {"bucket": "films", "bucket_endpoint": store, "bucket_prefix": "heika"} | keys
    async with run(service, data=tmp_path, **where) as api:
        course = await add_course(api, access="member")
        assert course["lessons"]
        lesson = await add_lesson(api, course["id"], media="fold.mp4")
        member_id, now = new_id(), clock.now()
        await api.handle(membership(member_id, segment(now, 1 / 24)))
        made = await api.client.post(
            "/v1/admin/attachments",
            data={"lesson_id": lesson["id"]},
            files={"file": ("配方.pdf", b"%PDF")},
            headers=api.admin(),
        )
        assert made.status_code == 201, made.text
        name = f"/films/heika/attachment-{made.json()['id']}"
        assert Store.files == {name: b"%PDF"}
        shown = (await api.client.get(f"/v1/lessons/{lesson['id']}", headers=api.member(member_id))).json()
        for url, path in ((shown["playback"]["url"], "/films/heika/fold.mp4"), (shown["attachments"][0]["url"], name)):
            address = urlsplit(url)
            asked = parse_qs(address.query)
            assert (f"{address.scheme}://{address.netloc}", address.path) == (store, path)
            assert asked["X-Amz-Credential"][0].startswith("AKIAIOSFODNN7EXAMPLE/")
            # The hour that the membership has left, not the two that a link may last.
            assert 3590 <= int(asked["X-Amz-Expires"][0]) <= 3600
        Store.status = 403
        refused = await api.client.post(
            "/v1/admin/attachments",
            data={"lesson_id": lesson["id"]},
            files={"file": ("a", b"b")},
            headers=api.admin(),
        )
        assert (refused.status_code, refused.json()["code"]) == (503, "media_away")
        assert await api.sql("SELECT count(*) FROM attachment") == [(1,)]
        await api.client.delete(f"/v1/admin/attachments/{made.json()['id']}", headers=api.admin())
        api.clock.advance(timedelta(hours=2))
        assert (await api.run_due(), Store.files) == (1, {})
