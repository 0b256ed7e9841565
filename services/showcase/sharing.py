"""Sharing: members take a link to a work, and a poster with it, that credit them with whoever comes through it."""

import secrets
from typing import Final
from uuid import UUID

from fastapi import Response
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberErased
from contracts.showcase import TOKEN_LENGTH, EntryShared
from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.events import emit
from kit.http import json_response
from kit.shapes import Out
from services.showcase.entries import PRIVATE, EntryNotFound
from services.showcase.models import Entry
from services.showcase.share_models import ShareLink

api = router(prefix="/v1/entries/{entry_id}/share-links", tags=["entries"])

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""As of invitation codes: nothing that is read or typed as something else."""
_FORGET: Final = text("DELETE FROM share_link WHERE member_id = :id")


class ShareLinkOut(Out):
    """A link to a work; `token` also works as the `invite_code` of a touch or a registration."""

    token: str
    url: str


@api.post("", status_code=201, response_model=ShareLinkOut, responses=problems(EntryNotFound))
async def share_entry(entry_id: UUID, caller: MemberDep, session: SessionDep, rt: RuntimeDep) -> Response:
    """The caller's own link to a work on show; asking again answers the same one. Sharing earns no votes."""
    await shared_entry(session, entry_id)
    token = await token_of(session, entry_id, caller.id)
    return json_response({"token": token, "url": rt.settings.entry_link(entry_id, invite_code=token)}, 201, PRIVATE)


async def shared_entry(session: AsyncSession, entry_id: UUID) -> Entry:
    """A work that may be shared: one on show; raises EntryNotFound."""
    entry = await session.get(Entry, entry_id)
    if entry is None or entry.status != "approved":
        raise EntryNotFound
    return entry


async def token_of(session: AsyncSession, entry_id: UUID, member_id: UUID) -> str:
    """The token of a member's link to a work, made with the first request; two first ones at once get the same."""
    held = select(col(ShareLink.token)).where(
        col(ShareLink.entry_id) == entry_id, col(ShareLink.member_id) == member_id
    )
    if (token := (await session.execute(held)).scalar_one_or_none()) is not None:
        return token
    fresh = "".join(secrets.choice(ALPHABET) for _ in range(TOKEN_LENGTH))
    row = {"token": fresh, "entry_id": entry_id, "member_id": member_id, "created_at": clock.now()}
    made = insert(ShareLink).values(row).on_conflict_do_nothing().returning(col(ShareLink.token))
    if (await session.execute(made)).one_or_none() is None:
        return (await session.execute(held)).scalar_one()
    await emit(session, EntryShared(token=fresh, entry_id=entry_id, member_id=member_id))
    return fresh


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the links; whom they brought is referrals' to keep."""
    await session.execute(_FORGET, {"id": event.member_id})
