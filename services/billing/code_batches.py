"""Batches of redeem codes: an admin makes thousands at once, takes them away once, withdraws what is left, sees who came."""

import asyncio
import secrets
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import Date, LargeBinary, Uuid, bindparam, case, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Gone, NotFound, Unprocessable, problems
from kit.http import HEAD_ONLY
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn, Text
from services.billing import codes
from services.billing.code_models import CodeBatch, RedeemCode
from services.billing.items import PlanCode
from services.billing.models import Order
from services.billing.plans import PlanNotFound, priced_plan

router = new_router(prefix="/v1/admin/redeem-code-batches", tags=["admin codes"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Issuer = Annotated[Caller, admin_with("coupons:write")]

MOST = 20_000
_VOIDED = {"voided", "voided_at"}

_WRITE = text("""
INSERT INTO redeem_code (id, code_hash, batch_id, status, expires_at)
SELECT id, code_hash, :batch_id, 'open', :expires_at FROM unnest(:ids, :hashes) AS made (id, code_hash)
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("hashes", type_=ARRAY(LargeBinary)))


class BatchNotFound(NotFound):
    """There is no such batch of codes; see the list of batches."""

    zh = "没有这批兑换码，请查看批次列表。"


class BatchOverAlready(Unprocessable):
    """These codes would expire before anybody could redeem one; let `expires_at` be later than now."""

    zh = "这批兑换码还没发出就已过期，请把 expires_at 设为将来的时间。"
    loc = ("body", "expires_at")


class CodesAlreadyDownloaded(Gone):
    """The codes of this batch were downloaded and are not kept; if they are lost, void the batch and make another."""

    zh = "这批兑换码已下载过，系统不再保存；如已遗失，请作废本批并重新生成。"


class BatchIn(StrictIn):
    """Codes for a plan's time and benefits as they are now."""

    plan_code: PlanCode
    count: Annotated[int, Field(strict=True, ge=1, le=MOST)]
    expires_at: Instant
    note: Text(0, 500) = ""  # type: ignore[valid-type]  # kit.shapes.Text makes a type


class BatchOut(Out):
    """A batch and what became of its codes; `downloaded_at` is when they were shown, the only time."""

    id: UUID
    plan_code: str
    months: int
    count: int
    redeemed: int
    voided: int
    expires_at: Instant
    note: str
    created_at: Instant
    downloaded_at: Instant | None
    voided_at: Instant | None


class ReportDay(Out):
    """One business day of a batch; `newcomers` had no membership time before."""

    day: date
    redeemed: int
    newcomers: int


class BatchReport(BatchOut):
    """What a batch brought: days on which codes were redeemed, who came, and how many of them have paid for an order since."""

    newcomers: int
    existing: int
    buyers: int
    days: list[ReportDay]


async def batch_of(batch_id: UUID, session: SessionDep) -> CodeBatch:
    """A batch by its id."""
    batch = await session.get(CodeBatch, batch_id)
    if batch is None:
        raise BatchNotFound
    return batch


Batch = Annotated[CodeBatch, Depends(batch_of, scope="function")]


async def _shown(session: AsyncSession, *batches: CodeBatch) -> list[BatchOut]:
    counted = await session.execute(
        select(
            col(RedeemCode.batch_id),
            func.count().filter(col(RedeemCode.status) == "redeemed"),
            func.count().filter(col(RedeemCode.status) == "void"),
        )
        .where(col(RedeemCode.batch_id).in_([batch.id for batch in batches]))
        .group_by(col(RedeemCode.batch_id))
    )
    counts = {batch_id: (redeemed, voided) for batch_id, redeemed, voided in counted}
    return [
        BatchOut(**batch.model_dump(), redeemed=counts[batch.id][0], voided=counts[batch.id][1]) for batch in batches
    ]


@router.post("", status_code=201, responses=problems(PlanNotFound, BatchOverAlready))
async def create_code_batch(body: BatchIn, _: Issuer, session: SessionDep, rt: RuntimeDep) -> BatchOut:
    """Make a batch of codes, all or none; they are had as `codes.csv`, once."""
    now = clock.now()
    plan = await priced_plan(session, body.plan_code)
    if body.expires_at <= now:
        raise BatchOverAlready
    batch = CodeBatch(
        plan_code=plan.code,
        months=plan.months,
        benefits=plan.benefits,
        count=body.count,
        expires_at=body.expires_at,
        note=body.note,
        seed=secrets.token_bytes(codes.SEED_BYTES),
        created_at=now,
    )
    session.add(batch)
    await session.flush()
    hashes = await asyncio.to_thread(_digests, rt.settings.codes_key, batch)
    await session.execute(
        _WRITE,
        {
            "batch_id": batch.id,
            "expires_at": batch.expires_at,
            "ids": [new_id() for _ in hashes],
            "hashes": hashes,
        },
    )
    made = BatchOut(**batch.model_dump(), redeemed=0, voided=0)
    await audit.record(session, "code_batch.created", batch.id, after=made.model_dump(mode="json"))
    return made


def _digests(key: str, batch: CodeBatch) -> list[bytes]:
    return [codes.digest(key, code) for code in codes.batch_codes(key, batch.seed or b"", batch.count)]


@router.get("")
async def list_code_batches(_: Reader, session: SessionDep, page: PageDep) -> Page[BatchOut]:
    """All batches, newest first."""
    newest = (col(CodeBatch.created_at).desc(), col(CodeBatch.id).desc())
    found, next_cursor = await keyset(session, select(CodeBatch), page, newest)
    return Page(items=await _shown(session, *found), next_cursor=next_cursor)


@router.get("/{batch_id}", responses=problems(BatchNotFound))
async def read_code_batch(_: Reader, batch: Batch, session: SessionDep) -> BatchOut:
    """One batch, with how many of its codes were redeemed or voided."""
    (shown,) = await _shown(session, batch)
    return shown


@router.get(
    "/{batch_id}/codes.csv",
    response_class=Response,
    responses=problems(BatchNotFound, CodesAlreadyDownloaded)
    | {200: {"content": {"text/csv": {}}, "description": "One column, `code`."}},
)
async def download_codes(batch_id: UUID, _: Issuer, session: SessionDep, rt: RuntimeDep, request: Request) -> Response:
    """The codes, once: with this answer what they are made from is destroyed, whether or not it arrives."""
    batch = await session.get(CodeBatch, batch_id, with_for_update={"key_share": True})
    if batch is None:
        raise BatchNotFound
    if batch.seed is None:
        raise CodesAlreadyDownloaded
    headers = {
        "Cache-Control": "private, no-store",
        "Content-Disposition": f'attachment; filename="codes-{batch.id}.csv"',
    }
    if HEAD_ONLY in request.headers:
        nothing = Response(media_type="text/csv", headers=headers)
        del nothing.headers["content-length"]
        return nothing
    made = await asyncio.to_thread(codes.batch_codes, rt.settings.codes_key, batch.seed, batch.count)
    batch.seed, batch.downloaded_at = None, clock.now()
    await session.flush()
    await audit.record(session, "code_batch.downloaded", batch.id, after={"count": batch.count})
    lines = "".join(f"{codes.grouped(code)}\r\n" for code in made)
    return Response(f"code\r\n{lines}", media_type="text/csv", headers=headers)


@router.post("/{batch_id}/void", responses=problems(BatchNotFound))
async def void_code_batch(batch_id: UUID, _: Issuer, session: SessionDep) -> BatchOut:
    """Withdraw every code that nobody has redeemed; what was redeemed stays. Asking again changes nothing."""
    batch = await session.get(CodeBatch, batch_id, with_for_update={"key_share": True})
    if batch is None:
        raise BatchNotFound
    (before,) = await _shown(session, batch)
    if batch.voided_at is None:
        batch.voided_at = clock.now()
        unused = (col(RedeemCode.batch_id) == batch_id) & (col(RedeemCode.status) == "open")
        await session.execute(update(RedeemCode).where(unused).values(status="void"))
        await session.flush()
    (shown,) = await _shown(session, batch)
    await audit.record(
        session,
        "code_batch.voided",
        batch.id,
        before=before.model_dump(mode="json", include=_VOIDED),
        after=shown.model_dump(mode="json", include=_VOIDED),
    )
    return shown


@router.get("/{batch_id}/report", responses=problems(BatchNotFound))
async def report_code_batch(_: Reader, batch: Batch, session: SessionDep) -> BatchReport:
    """What a batch brought, by business day; days without a redemption are left out."""
    day = cast(func.timezone(clock.ZONE.key, col(RedeemCode.redeemed_at)), Date)
    first = func.count().filter(col(RedeemCode.first_time).is_(True))
    redeemed = (col(RedeemCode.batch_id) == batch.id) & (col(RedeemCode.status) == "redeemed")
    rows = await session.execute(select(day, func.count(), first).where(redeemed).group_by(day).order_by(day))
    days = [ReportDay(day=at, redeemed=count, newcomers=new) for at, count, new in rows]
    bought = (
        select(col(Order.id))
        .where(col(Order.member_id) == col(RedeemCode.member_id), col(Order.paid_at) > col(RedeemCode.redeemed_at))
        .exists()
    )
    buyers = await session.scalar(
        select(func.count(func.distinct(case((bought, col(RedeemCode.member_id)))))).where(redeemed)
    )
    (shown,) = await _shown(session, batch)
    newcomers = sum(item.newcomers for item in days)
    return BatchReport(
        **shown.model_dump(),
        newcomers=newcomers,
        existing=shown.redeemed - newcomers,
        buyers=buyers or 0,
        days=days,
    )
