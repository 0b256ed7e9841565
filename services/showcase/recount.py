"""The recount: a contest's result worked out once more, from the vote rows alone, and held against what was published."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import asyncpg

from kit.app import Runtime
from services.showcase.contests import ContestNotFound

PREFETCH: Final = 10_000
_ROW: Final = struct.Struct(">iq")
KEYS: Final = ("votes", "trees", "reached_at", "submitted_at", "entry_id")

_CONTEST: Final = "SELECT settled_at FROM contest WHERE id = $1"
_ENTRIES: Final = """
SELECT e.id, e.status, (extract(epoch FROM e.submitted_at) * 1000000)::bigint AS submitted_at, coalesce(t.votes, 0) AS tally,
    r.rank, r.votes, r.trees, (extract(epoch FROM r.reached_at) * 1000000)::bigint AS reached_at, r.tie_break
FROM entry e LEFT JOIN tally t ON t.entry_id = e.id LEFT JOIN result r ON r.entry_id = e.id WHERE e.contest_id = $1
"""
_VOTES: Final = """
SELECT entry_id, member_id, day - date '2000-01-01' AS day, (extract(epoch FROM cast_at) * 1000000)::bigint AS cast_at,
    tree, quarantine
FROM vote WHERE contest_id = $1 ORDER BY entry_id, member_id, day
"""
_PUBLISHED: Final = "SELECT votes, counted, digest, removed FROM settlement WHERE contest_id = $1"


@dataclass
class Count:
    """What the rows say of one work."""

    votes: int = 0
    reached_at: int | None = None
    trees: set[bytes] = field(default_factory=set)


@dataclass
class Recount:
    """What the rows say of a contest, and where that differs from what is kept or was published."""

    settled: bool
    votes: int = 0
    counted: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    ranks: list[tuple[UUID, Count]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def expect(self, what: str, published: object, counted: object) -> None:
        """Note a difference."""
        if published != counted:
            self.differences.append(f"{what}: published {published}, counted {counted}")


async def recount(rt: Runtime, contest_id: UUID) -> Recount:
    """Read every vote of a contest, count, rank, and compare; ContestNotFound."""
    async with _reading(rt) as connection:
        contest = await connection.fetchrow(_CONTEST, contest_id)
        if contest is None:
            raise ContestNotFound
        entries = {row["id"]: row for row in await connection.fetch(_ENTRIES, contest_id)}
        found = Recount(settled=contest["settled_at"] is not None)
        counts = await _count(connection, contest_id, found)
        for entry_id, entry in entries.items():
            found.expect(f"tally of {entry_id}", entry["tally"], counts.get(entry_id, Count()).votes)
        _rank(found, entries, counts)
        if found.settled:
            _compare(found, entries)
            published = await connection.fetchrow(_PUBLISHED, contest_id)
            for name in ("votes", "counted", "digest"):
                found.expect(name, published and published[name], getattr(found, name))
            removed = {item["rule"]: item["votes"] for item in json.loads(published["removed"])} if published else None
            found.expect("removed", removed, found.removed)
    return found


@asynccontextmanager
async def _reading(rt: Runtime) -> AsyncIterator[asyncpg.Connection]:
    """One moment of the database, whoever votes meanwhile."""
    connection = await rt.db.raw()
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()


async def _count(connection: asyncpg.Connection, contest_id: UUID, found: Recount) -> dict[UUID, Count]:
    counts: dict[UUID, Count] = {}
    whole, current, count, entry_digest = sha256(), None, Count(), sha256()
    async for entry_id, member_id, day, cast_at, tree, quarantine in connection.cursor(
        _VOTES, contest_id, prefetch=PREFETCH
    ):
        if entry_id != current:
            if current is not None:
                whole.update(entry_digest.digest())
            current, entry_digest = entry_id, sha256()
            count = counts[entry_id] = Count()
        why = quarantine or ""
        entry_digest.update(entry_id.bytes + member_id.bytes + _ROW.pack(day, cast_at) + tree + why.encode())
        found.votes += 1
        if quarantine is None:
            count.votes += 1
            count.trees.add(tree)
            count.reached_at = cast_at if count.reached_at is None else max(count.reached_at, cast_at)
        else:
            found.removed[quarantine] = found.removed.get(quarantine, 0) + 1
    if current is not None:
        whole.update(entry_digest.digest())
    found.digest = whole.hexdigest()
    return counts


def _rank(found: Recount, entries: dict[UUID, Any], counts: dict[UUID, Count]) -> None:
    # What was withdrawn after the settlement keeps its published place.
    standing = [
        id_ for id_, entry in entries.items() if (entry["rank"] if found.settled else entry["status"] == "approved")
    ]
    found.counted = sum(counts[id_].votes for id_ in standing if id_ in counts)
    ranked = [(id_, counts.get(id_, Count())) for id_ in standing]
    ranked.sort(key=lambda item: _keys(item[0], item[1], entries))
    found.ranks = ranked


def _keys(entry_id: UUID, count: Count, entries: dict[UUID, Any]) -> tuple[int, int, int, int, UUID]:
    """The declared tie chain: more votes, more trees, reached earlier, submitted earlier, smaller id."""
    return (-count.votes, -len(count.trees), count.reached_at or 0, entries[entry_id]["submitted_at"], entry_id)


def _compare(found: Recount, entries: dict[UUID, Any]) -> None:
    keys = [_keys(entry_id, count, entries) for entry_id, count in found.ranks]
    apart = [KEYS[next(n for n in range(5) if better[n] != worse[n])] for better, worse in pairwise(keys)]
    for place, (entry_id, count) in enumerate(found.ranks):
        row = entries[entry_id]
        ties = [key for key in (*apart[max(0, place - 1) : place], *apart[place : place + 1]) if key != "votes"]
        found.expect(f"rank of {entry_id}", row["rank"], place + 1)
        found.expect(f"votes of {entry_id}", row["votes"], count.votes)
        found.expect(f"invite trees of {entry_id}", row["trees"], len(count.trees))
        found.expect(f"last vote of {entry_id}", row["reached_at"], count.reached_at)
        found.expect(f"tie break of {entry_id}", row["tie_break"], ties[0] if ties else None)
