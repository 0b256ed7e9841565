"""Grants in bulk: a CSV file of members who are given a coupon each behind the answer, with how far it is."""

import asyncio
from hashlib import sha256
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, File, Query, Response, UploadFile
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.referrals.admin_campaigns import CampaignNotFound, Editor, Reader
from services.referrals.grant_file import MAX_BYTES, GrantFileRefused, Line, NotUtf8, read_lines
from services.referrals.grant_models import GrantBatch, GrantRow
from services.referrals.models import Campaign
from services.referrals.newcomers import is_new, living_soon

routes = router(prefix="/v1/admin/coupon-campaigns/{campaign_id}/grant-batches", tags=["admin coupons"])

RowStatus = Literal["waiting", "granted", "refused"]


class GrantBatchNotFound(NotFound):
    """This campaign has no such batch of grants."""

    zh = "这个活动没有这批发放。"


class GrantBatchOut(Out):
    """A batch: of its `rows`, `granted` have their coupon and `refused` got none; it is finished when no row waits."""

    id: UUID
    campaign_id: UUID
    file_name: str
    rows: int
    granted: int
    refused: int
    created_at: Instant
    finished_at: Instant | None


class GrantRowOut(Out):
    """A row of the file, counting the header as row 1; `code` says why a member got none."""

    row: int
    member_id: UUID
    note: str
    status: RowStatus
    code: str | None
    coupon_id: UUID | None


_ROWS = text("""
INSERT INTO grant_row (batch_id, number, member_id, note, status)
SELECT :batch, number, member_id, nullif(note, ''), 'waiting'
FROM unnest(CAST(:numbers AS int[]), CAST(:members AS uuid[]), CAST(:notes AS text[])) AS line(number, member_id, note)
""")

_AGAIN = text("""
WITH again AS (
    UPDATE grant_row SET status = 'waiting', code = NULL WHERE batch_id = :batch AND status = 'refused'
    RETURNING number
)
UPDATE grant_batch SET refused = refused - (SELECT count(*) FROM again), finished_at = NULL
WHERE id = :batch AND EXISTS (SELECT FROM again)
""")


async def batch_of(campaign_id: UUID, batch_id: UUID, session: SessionDep) -> GrantBatch:
    """The batch of this campaign."""
    batch = await session.get(GrantBatch, batch_id)
    if batch is None or batch.campaign_id != campaign_id:
        raise GrantBatchNotFound
    return batch


Batch = Annotated[GrantBatch, Depends(batch_of, scope="function")]


@routes.post(
    "",
    status_code=202,
    max_body_size=MAX_BYTES,
    responses=problems(CampaignNotFound, NotUtf8, GrantFileRefused),
)
async def grant_in_bulk(
    campaign_id: UUID, file: Annotated[UploadFile, File()], caller: Editor, session: SessionDep, response: Response
) -> GrantBatchOut:
    """Give every member of a CSV file a coupon; with one bad row nobody gets any, and the answer names where to look.

    Columns: `member_id,note`, of which the note (a nickname, say) may be left out; UTF-8 with or without BOM. The
    campaign's total and its limit for each member hold; whom they refuse is a row with its reason. The same file sent
    again for the same campaign answers the batch it made the first time, and gives nothing more.
    """
    campaign = await session.get(Campaign, campaign_id)
    if campaign is None or campaign.deleted_at is not None:
        raise CampaignNotFound
    content = await file.read()
    lines = await asyncio.to_thread(read_lines, content)
    # Behind the answer nobody waits for them any more.
    await living_soon(session, [line.member_id for line in lines if is_new(line.member_id)])
    fresh = GrantBatch(
        campaign_id=campaign_id,
        file_name=(file.filename or "")[:200],
        digest=sha256(content).digest(),
        rows=len(lines),
        requested_by=caller.id,
        created_at=clock.now(),
    )
    batch = await _write(session, fresh, lines)
    response.headers["Location"] = f"/v1/admin/coupon-campaigns/{campaign_id}/grant-batches/{batch.id}"
    return GrantBatchOut.model_validate(batch)


async def _write(session: AsyncSession, fresh: GrantBatch, lines: list[Line]) -> GrantBatch:
    """The batch with its rows, or the one that this file made before."""
    row = (
        insert(GrantBatch)
        .values(fresh.model_dump())
        .on_conflict_do_nothing(constraint="grant_batch_campaign_digest_key")
    )
    if (await session.execute(row.returning(col(GrantBatch.id)))).scalar_one_or_none() is None:
        held = select(GrantBatch).where(
            col(GrantBatch.campaign_id) == fresh.campaign_id, col(GrantBatch.digest) == fresh.digest
        )
        return (await session.execute(held)).scalar_one()
    columns = {
        "batch": fresh.id,
        "numbers": [line.number for line in lines],
        "members": [line.member_id for line in lines],
        "notes": [line.note for line in lines],
    }
    await session.execute(_ROWS, columns)
    asked = {"campaign": fresh.campaign_id, "file": fresh.file_name, "rows": fresh.rows}
    await audit.record(session, "coupons.grant_asked", fresh.id, after=asked)
    return fresh


@routes.get("")
async def list_grant_batches(_: Reader, campaign_id: UUID, session: SessionDep, page: PageDep) -> Page[GrantBatchOut]:
    """The batches of a campaign, the newest first."""
    rows, next_cursor = await keyset(
        session,
        select(GrantBatch).where(col(GrantBatch.campaign_id) == campaign_id),
        page,
        (col(GrantBatch.created_at).desc(), col(GrantBatch.id).desc()),
    )
    return Page(items=[GrantBatchOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{batch_id}", responses=problems(GrantBatchNotFound))
async def read_grant_batch(_: Reader, batch: Batch) -> GrantBatchOut:
    """How far a batch is."""
    return GrantBatchOut.model_validate(batch)


@routes.get("/{batch_id}/rows", responses=problems(GrantBatchNotFound))
async def list_grant_rows(
    _: Reader,
    batch: Batch,
    session: SessionDep,
    page: PageDep,
    status: Annotated[RowStatus | None, Query(description="only rows in this state")] = None,
) -> Page[GrantRowOut]:
    """What became of every row of a batch, in the order of the file."""
    found = select(GrantRow).where(col(GrantRow.batch_id) == batch.id)
    if status is not None:
        found = found.where(col(GrantRow.status) == status)
    rows, next_cursor = await keyset(session, found, page, (col(GrantRow.number),))
    items = [
        GrantRowOut.model_validate({**row.model_dump(), "row": row.number, "note": row.note or ""}) for row in rows
    ]
    return Page(items=items, next_cursor=next_cursor)


@routes.post("/{batch_id}/retries", status_code=202, responses=problems(GrantBatchNotFound))
async def retry_grants(_: Editor, batch: Batch, session: SessionDep) -> GrantBatchOut:
    """Try the refused rows of a batch once more, after its campaign got more coupons, say; granted ones stay as they are."""
    before = {"refused": batch.refused}
    # The rows' own job counts under the same lock, so none is counted twice.
    await session.execute(select(col(GrantBatch.id)).where(col(GrantBatch.id) == batch.id).with_for_update())
    await session.execute(_AGAIN, {"batch": batch.id})
    await session.refresh(batch)
    await audit.record(session, "coupons.grant_retried", batch.id, before=before, after={"refused": batch.refused})
    return GrantBatchOut.model_validate(batch)
