"""Features: the editors show a work with an interview of its author, first as a draft, then to everybody."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.showcase import EntryFeatured
from kit import audit, clock
from kit.app import router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, StaleVersion, problems
from kit.events import emit
from kit.http import cacheable, json_response, require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn, Text
from services.showcase.entries import EntryNotFound, EntryOut, shown, with_votes
from services.showcase.feature_models import Feature
from services.showcase.models import Entry
from services.showcase.uploads import AddressDep

api = router(prefix="/v1/features", tags=["features"])
admin_api = router(prefix="/v1/admin/features", tags=["admin contests"])

READER = [admin_with("contests:read")]
EDITOR = [admin_with("contests:write")]


class FeatureNotFound(NotFound):
    """There is no such feature, or it is not published."""

    zh = "没有这篇推荐，或者它没有发布。"


class EntryNotOnShow(Conflict):
    """Only a work that is on show can be featured; approve it first."""

    zh = "只有公开展示的作品才能推荐，请先审核通过。"


Title = Text(1, 120)
Body = Text(0, 20_000)
Published = Annotated[bool, Field(strict=True)]


class FeatureIn(StrictIn):
    """A work to feature, with what is told of it and its author."""

    entry_id: UUID
    title: Title  # type: ignore[valid-type]  # Text() makes a type
    body: Body = ""  # type: ignore[valid-type]  # as above
    published: Published = False


class FeaturePatch(StrictIn):
    """What to change; what is left out stays."""

    title: Title | None = None  # type: ignore[valid-type]  # as above
    body: Body | None = None  # type: ignore[valid-type]  # as above
    published: Published | None = None


class FeatureOut(Out):
    """A featured work; `entry` is null when its author has withdrawn it since."""

    id: UUID
    entry_id: UUID
    entry: EntryOut | None
    title: str
    body: str
    published: bool
    published_at: Instant | None
    version: int
    created_at: Instant


async def _shown(session: AsyncSession, features: list[Feature], address: str) -> list[dict[str, Any]]:
    wanted = with_votes().where(
        col(Entry.id).in_([feature.entry_id for feature in features]), col(Entry.status) == "approved"
    )
    rows = list((await session.execute(wanted)).all())
    entries = {entry["id"]: entry for entry in await shown(session, rows, address)}
    return [feature.model_dump() | {"entry": entries.get(feature.entry_id)} for feature in features]


def _published() -> Select[Feature]:
    # What its author took back is not shown by us either.
    on_show = select(col(Entry.id)).where(col(Entry.status) == "approved")
    return select(Feature).where(col(Feature.published), col(Feature.entry_id).in_(on_show))


@api.get("", response_model=Page[FeatureOut])
async def list_features(request: Request, session: SessionDep, page: PageDep, address: AddressDep) -> Response:
    """Featured works and interviews, the latest first."""
    order = (col(Feature.published_at).desc(), col(Feature.id).desc())
    rows, next_cursor = await keyset(session, _published(), page, order)
    return cacheable(request, {"items": await _shown(session, list(rows), address), "next_cursor": next_cursor})


@api.get("/{feature_id}", response_model=FeatureOut, responses=problems(FeatureNotFound))
async def read_feature(feature_id: UUID, request: Request, session: SessionDep, address: AddressDep) -> Response:
    """One featured work with its interview."""
    feature = (await session.execute(_published().where(col(Feature.id) == feature_id))).scalar_one_or_none()
    if feature is None:
        raise FeatureNotFound
    return cacheable(request, (await _shown(session, [feature], address))[0])


async def locked_feature(feature_id: UUID, session: SessionDep) -> Feature:
    """The feature, locked until the transaction ends."""
    feature = await session.get(Feature, feature_id, with_for_update=True)
    if feature is None:
        raise FeatureNotFound
    return feature


LockedFeature = Annotated[Feature, Depends(locked_feature, scope="function")]


@admin_api.get("", dependencies=READER, response_model=Page[FeatureOut])
async def list_features_to_edit(session: SessionDep, page: PageDep, address: AddressDep) -> Response:
    """All features, drafts too, the newest first."""
    rows, next_cursor = await keyset(session, select(Feature), page, (col(Feature.id).desc(),))
    return json_response({"items": await _shown(session, list(rows), address), "next_cursor": next_cursor})


@admin_api.post(
    "",
    dependencies=EDITOR,
    status_code=201,
    response_model=FeatureOut,
    responses=problems(EntryNotFound, EntryNotOnShow),
)
async def create_feature(body: FeatureIn, session: SessionDep, address: AddressDep) -> Response:
    """Feature a work, as a draft or at once."""
    entry = await session.get(Entry, body.entry_id, with_for_update={"read": True})
    if entry is None:
        raise EntryNotFound
    if entry.status != "approved":
        raise EntryNotOnShow
    feature = Feature(**body.model_dump(), created_at=clock.now())
    session.add(feature)
    await _publish(session, feature, entry)
    await audit.record(session, "feature.created", feature.id, after=feature.model_dump())
    return await _answer(session, feature, address, 201)


@admin_api.get("/{feature_id}", dependencies=READER, response_model=FeatureOut, responses=problems(FeatureNotFound))
async def read_feature_to_edit(feature_id: UUID, session: SessionDep, address: AddressDep) -> Response:
    """One feature, a draft too, with the ETag that a change names in If-Match."""
    feature = await session.get(Feature, feature_id)
    if feature is None:
        raise FeatureNotFound
    return await _answer(session, feature, address, 200)


@admin_api.patch(
    "/{feature_id}",
    dependencies=EDITOR,
    response_model=FeatureOut,
    responses=problems(FeatureNotFound, EntryNotOnShow, StaleVersion),
)
async def change_feature(
    body: FeaturePatch, feature: LockedFeature, session: SessionDep, address: AddressDep, request: Request
) -> Response:
    """Change a feature, publish it or take it back; what was published once is told once."""
    require_version(request, feature.version)
    before = feature.model_dump()
    for name, value in body.model_dump(exclude_unset=True).items():
        if value is not None:
            setattr(feature, name, value)
    entry = await session.get_one(Entry, feature.entry_id)
    if feature.published and entry.status != "approved":
        raise EntryNotOnShow
    feature.version += 1
    await _publish(session, feature, entry)
    await audit.record(session, "feature.changed", feature.id, before=before, after=feature.model_dump())
    return await _answer(session, feature, address, 200)


@admin_api.delete(
    "/{feature_id}", dependencies=EDITOR, status_code=204, responses=problems(FeatureNotFound, StaleVersion)
)
async def delete_feature(feature: LockedFeature, session: SessionDep, request: Request) -> None:
    """Delete a feature; that its author was featured stays to their credit."""
    require_version(request, feature.version)
    await audit.record(session, "feature.deleted", feature.id, before=feature.model_dump())
    await session.execute(delete(Feature).where(col(Feature.id) == feature.id))


async def _publish(session: AsyncSession, feature: Feature, entry: Entry) -> None:
    """Tell the others when a feature is shown for the first time."""
    first = feature.published and feature.published_at is None
    if first:
        feature.published_at = clock.now()
    await session.flush()
    if first and feature.published_at is not None:
        featured = EntryFeatured(
            feature_id=feature.id, entry_id=entry.id, member_id=entry.member_id, featured_at=feature.published_at
        )
        await emit(session, featured)


async def _answer(session: AsyncSession, feature: Feature, address: str, status: int) -> Response:
    (told,) = await _shown(session, [feature], address)
    return json_response(told, status, {"ETag": version_tag(feature.version)})
