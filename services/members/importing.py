"""Importing: the job that writes an import's people in one transaction, and shows from outside it how far it is."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import structlog
from joserfc.errors import JoseError
from sqlalchemy import insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberRegistered
from kit import clock
from kit.app import Runtime
from kit.audit import fit
from kit.events import Event, emit
from kit.vault import Vault, open_vault
from services.members.models import AuditEntry, Identity, Member, MemberImport
from services.members.profile import changed
from services.members.promotions import note_tier
from services.members.sign_in import phone_identity

log = structlog.get_logger(__name__)

PORTION = 500
SEALED_BYTES = 16_000
"""In one sealed line; a row has half of it at most, and joserfc opens no token of more than 67 kB."""
# One import at a time: two that name the same phones would wait for each other's rows.
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('members import', 0))")


class Raced(Exception):
    """Somebody registered, or was erased, while their row was being written: the whole is begun again."""


def seal_rows(vault: Vault, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as sealed lines, each of so much as a token may hold."""
    lines: list[str] = []
    held: list[bytes] = []
    for row in [*map(orjson.dumps, rows), b""]:
        if held and (not row or sum(map(len, held)) + len(row) > SEALED_BYTES):
            lines.append(vault.seal(f"[{b','.join(held).decode()}]"))
            held = []
        held.append(row)
    return "\n".join(lines)


def unseal_rows(vault: Vault, sealed: str) -> list[dict[str, Any]]:
    """What `seal_rows` was given."""
    return [row for line in sealed.splitlines() for row in orjson.loads(vault.unseal(line))]


async def write_imports(rt: Runtime) -> int:
    """Write the import that has waited longest; how many were written. A crash leaves nothing of it, and it is begun anew."""
    try:
        async with rt.db.session() as session, session.begin():
            if not (await session.execute(_LOCK)).scalar_one():
                return 0
            waiting = select(MemberImport).where(col(MemberImport.status) == "pending")
            oldest = waiting.order_by(col(MemberImport.created_at), col(MemberImport.id)).limit(1)
            job = (await session.execute(oldest)).scalar_one_or_none()
            if job is None:
                return 0
            await _write_all(rt, session, job)
    except Raced:
        log.info("an import begins again")
        return 0
    return 1


async def _write_all(rt: Runtime, session: AsyncSession, job: MemberImport) -> None:
    vault = open_vault(rt.settings.key)
    try:
        rows = await asyncio.to_thread(unseal_rows, vault, job.sealed or "")
    except (JoseError, ValueError):
        # Sealed with another key: it never becomes readable, and must not hold up those behind it.
        log.exception("an import cannot be opened", import_id=str(job.id))
        job.status, job.sealed, job.finished_at = "failed", None, clock.now()
        return
    done = created = 0
    for start in range(0, len(rows), PORTION):
        portion = rows[start : start + PORTION]
        created += await _write(session, vault, portion)
        done += len(portion)
        await _show(rt, job.id, done)
    result = {"done": done, "created": created, "updated": done - created}
    now = clock.now()
    finished = {"status": "done", "sealed": None, "finished_at": now, **result}
    await session.execute(update(MemberImport).where(col(MemberImport.id) == job.id).values(finished))
    after = fit({"file": job.file_name, **result})
    session.add(AuditEntry(actor=job.requested_by, action="members.imported", target=str(job.id), after=after, at=now))


async def _show(rt: Runtime, import_id: UUID, done: int) -> None:
    """Let others see how far it is, past the transaction that nobody sees into."""
    async with rt.db.session() as session, session.begin():
        await session.execute(update(MemberImport).where(col(MemberImport.id) == import_id).values(done=done))


async def _write(session: AsyncSession, vault: Vault, rows: Sequence[dict[str, Any]]) -> int:
    """Write these people; how many of them are new."""
    by_digest = {vault.digest("phone", row["phone"]): row for row in rows}
    held = select(col(Identity.digest), col(Identity.member_id)).where(
        col(Identity.kind) == "phone", col(Identity.digest).in_(by_digest)
    )
    known = {found.digest: found.member_id for found in await session.execute(held)}
    await _change(session, {member_id: by_digest[digest] for digest, member_id in known.items()})
    new = [row for digest, row in by_digest.items() if digest not in known]
    await _register(session, vault, new)
    return len(new)


async def _change(session: AsyncSession, rows: dict[UUID, dict[str, Any]]) -> None:
    """Give members their labels and tiers."""
    theirs = select(Member).where(col(Member.id).in_(rows), col(Member.erased_at).is_(None))
    members = (await session.execute(theirs.order_by(col(Member.id)).with_for_update())).scalars().all()
    if len(members) < len(rows):
        raise Raced
    events: list[Event] = []
    for member in members:
        row, before = rows[member.id], (member.labels, member.tier)
        member.labels = list(dict.fromkeys([*member.labels, *row["labels"]]))
        member.tier = row["tier"] or member.tier
        if (member.labels, member.tier) == before:
            continue
        member.version += 1
        if member.tier != before[1]:
            note_tier(session, member, before[1], "admin")
        events.append(changed(member))
    await session.flush()
    await emit(session, *events)


async def _register(session: AsyncSession, vault: Vault, rows: Sequence[dict[str, Any]]) -> None:
    """Make members of people whose phones nobody has."""
    if not rows:
        return
    now = clock.now()
    members = [
        Member(
            nickname=row["nickname"] or f"烘焙友{secrets.randbelow(10**6):06}",
            labels=row["labels"],
            tier=row["tier"] or "potential",
            created_at=now,
        )
        for row in rows
    ]
    # Sealing hundreds of phones takes a while, in which others are to be served.
    identities = await asyncio.to_thread(
        lambda: [phone_identity(vault, member.id, row["phone"]) for member, row in zip(members, rows, strict=True)]
    )
    await session.execute(insert(Member), [member.model_dump() for member in members])
    claimed = upsert(Identity).values([identity.model_dump() for identity in identities]).on_conflict_do_nothing()
    if len((await session.execute(claimed.returning(col(Identity.id)))).all()) < len(identities):
        raise Raced
    events: list[Event] = []
    for member, identity in zip(members, identities, strict=True):
        events.append(
            MemberRegistered(
                member_id=member.id, nickname=member.nickname, registered_at=now, phone_hash=identity.digest
            )
        )
        if member.tier != "potential":
            note_tier(session, member, "potential", "admin")
        if member.labels or member.tier != "potential":
            events.append(changed(member))
    await session.flush()
    await emit(session, *events)
