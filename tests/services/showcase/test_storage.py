"""Storage: a folder, and a bucket of a real S3-speaking server, keep pictures alike."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer

from services.showcase.app import service
from services.showcase.settings import Settings
from services.showcase.storage import Folder, PicturesAway, Storage, open_storage
from tests.harness import Run
from tests.services.showcase.conftest import Showcase, picture

NAME = "a" * 64 + "-small.jpg"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3-speaking server with a bucket `pictures`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    assert httpx.put(f"{address}/pictures").status_code == 200
    yield address
    server.stop()


def of_bucket(address: str, **more: str) -> dict[str, str]:
    keys = {"bucket_region": "us-east-1", "bucket_access_key": "key", "bucket_secret_key": "secret"}
    return {"bucket": "pictures", "bucket_endpoint": address, "bucket_prefix": "works"} | keys | more


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_stored_file_is_whole_or_not_there(kind: str, s3: str, tmp_path: Path) -> None:
    storage: Storage = open_storage(Settings(data=tmp_path, **(of_bucket(s3) if kind == "bucket" else {})))  # type: ignore[arg-type]  # by field name
    assert storage.read(NAME) is None
    storage.save(NAME, b"picture")
    storage.save(NAME, b"picture")
    assert storage.read(NAME) == b"picture"
    served = asyncio.run(storage.answer(NAME, {"X-Kept": "yes"}))
    assert served is not None
    assert (served.headers["content-type"], served.headers["x-kept"]) == ("image/jpeg", "yes")
    for bad in ("../x", NAME + "\n", "/etc/passwd", ""):
        assert asyncio.run(storage.answer(bad, {})) is None
        with pytest.raises(ValueError, match="not the name"):
            storage.save(bad, b"")
    storage.delete([NAME, "b" * 64 + "-large.webp"])
    storage.delete([NAME])
    assert storage.read(NAME) is None
    assert storage.tidy() == 0


async def test_an_upload_lives_in_the_bucket_and_is_served_from_it(run: Run, s3: str, tmp_path: Path) -> None:
    async with run(service, data=tmp_path, **of_bucket(s3)) as api:
        showcase = Showcase(api)
        answer = await showcase.upload(api.member(), picture((400, 300)))
        assert answer.status_code == 201, answer.text
        url = answer.json()["thumbnails"]["small"]
        served = await api.client.get(url)
        assert (served.status_code, served.headers["content-type"]) == (200, "image/jpeg")
        assert served.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert served.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert int(served.headers["content-length"]) == len(served.content) > 500
        name = url.rsplit("/", 1)[1]
        # The bucket itself holds it under its prefix, typed and cacheable, for an edge that may read it directly.
        key = f"{name[:2]}/{name[2:4]}/{name}"
        there = await obstore.get_async(api.rt.state["darkroom"].storage.store, key)
        assert bytes(await there.bytes_async()) == served.content
        kinds = {"Content-Type": "image/jpeg", "Cache-Control": "public, max-age=31536000, immutable"}
        assert there.attributes == kinds
        # And shows it to nobody without its keys.
        assert (await asyncio.to_thread(httpx.get, f"{s3}/pictures/works/{key}")).status_code == 403
        assert (await api.client.get(url.replace(name[:64], "0" * 64))).json()["code"] == "file_not_found"
        assert not (tmp_path / "uploads").exists()


async def test_a_store_that_is_away_is_503_and_nothing_was_stored(run: Run, s3: str, tmp_path: Path) -> None:
    # Nobody listens there; and a bucket that does not exist, or keys that do not fit, are no error of the member's either.
    for wrong in (of_bucket("http://127.0.0.1:9"), of_bucket(s3, bucket="nobody-s")):
        async with run(service, data=tmp_path, **wrong) as api:
            refused = await Showcase(api).upload(api.member(), picture())
            assert (refused.status_code, refused.json()["code"]) == (503, "pictures_away")
            assert refused.headers["retry-after"] == "5"
            assert await api.sql("SELECT 1 FROM upload WHERE stored") == []
            read = await api.client.get(f"/v1/uploads/files/{NAME}")
            assert read.status_code in {404, 503}


def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from services.showcase.storage import Folder\n"
        "os.fsync = lambda handle: (print('written', flush=True), sys.stdin.read())\n"
        f"Folder(Path({str(tmp_path)!r})).save({NAME!r}, bytes(1 << 20))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    folder = Folder(tmp_path)
    assert folder.find(NAME) is None
    [left] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert folder.tidy() == 0  # it might be somebody's who is still writing
    an_hour_ago = time.time() - 3601
    os.utime(left, (an_hour_ago, an_hour_ago))
    assert (folder.tidy(), folder.tidy()) == (1, 0)
    folder.save(NAME, b"whole")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder.find(NAME)]


def test_a_full_or_read_only_disk_is_a_store_that_is_away(tmp_path: Path, monkeypatch: Any) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PicturesAway):
        Folder(tmp_path).save(NAME, b"picture")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
