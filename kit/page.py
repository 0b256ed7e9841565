"""Keyset pages: an opaque cursor says after which row to go on, so that depth costs nothing."""

import base64
import binascii
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select, and_, literal, or_, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from kit.errors import Unprocessable
from kit.shapes import Digits, Out
from kit.text import dump_json

Item = TypeVar("Item")
MAX_CURSOR_LENGTH = 1000


class InvalidCursor(Unprocessable):
    """This cursor is not one of ours, or belongs to another list; start again without it."""

    zh = "游标无效或不属于这个列表，请去掉 cursor 从头读取。"
    loc = ("query", "cursor")


class Page(Out, Generic[Item]):
    """A part of a list; `next_cursor` is null at its end."""

    items: list[Item]
    next_cursor: str | None = None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """`OrderPage` for a page of OrderOut: what generated clients call it."""
        return f"{params[0].__name__.removesuffix('Out')}Page"


class PageParams:
    """`limit` and `cursor` of a list request."""

    def __init__(self, limit: int = 20, cursor: str | None = None) -> None:
        self.limit = limit
        self.cursor = cursor


# Not the class itself: FastAPI takes what is no coroutine to a thread, which costs more than a page of rows.
async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="how many at most"), Digits] = 20,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR_LENGTH, description="next_cursor of the page before")
    ] = None,
) -> PageParams:
    return PageParams(limit, cursor)


PageDep = Annotated[PageParams, Depends(_page)]


def encode_cursor(values: Sequence[Any]) -> str:
    """An opaque, URL-safe cursor for the values that a row is ordered by."""
    return base64.urlsafe_b64encode(dump_json(list(values))).decode().rstrip("=")


def decode_cursor(cursor: str, types: Sequence[type]) -> list[Any]:
    """The values of a cursor, of these types; InvalidCursor when they are not."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(types):
            raise InvalidCursor
        return [_parse(value, kind) for value, kind in zip(values, types, strict=True)]
    except (ValueError, TypeError, binascii.Error, OverflowError) as failure:
        raise InvalidCursor from failure


def _parse(value: Any, kind: type) -> Any:
    if value is None:
        raise ValueError("null in a cursor")
    if kind in (datetime, date, UUID) and not isinstance(value, str):
        raise ValueError("not text")
    if kind is datetime or kind is date:
        return kind.fromisoformat(value)
    if kind is UUID:
        return UUID(value)
    if kind is int and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63):
        raise ValueError("not an integer")
    if kind is object:  # SQLModel's AutoString does not say that it is text
        kind = str
    if kind is str and (not isinstance(value, str) or "\x00" in value):
        raise ValueError("not text")
    return kind(value)


async def keyset(
    session: AsyncSession, statement: Select[Any], params: PageParams, order: Sequence[Any]
) -> tuple[list[Any], str | None]:
    """The rows of one page, ordered by these not-null columns (`Order.id.desc()`), of which the last must be unique.

    Rows are entities when the statement selects one entity, else SQLAlchemy rows; the columns ordered by must be selected.
    """
    columns = [_column(item) for item in order]
    if params.cursor:
        after = decode_cursor(params.cursor, [column.type.python_type for column in columns])
        statement = statement.where(_after(order, columns, after))
    result = await session.execute(statement.order_by(*order).limit(params.limit + 1))
    single = len(statement.column_descriptions) == 1 and isinstance(statement.column_descriptions[0]["type"], type)
    rows: list[Any] = list(result.scalars().all()) if single else list(result.all())
    if len(rows) <= params.limit:
        return rows, None
    rows = rows[: params.limit]
    return rows, encode_cursor([getattr(rows[-1], column.key) for column in columns])


def sliced(rows: list[dict[str, Any]], params: PageParams, key: str) -> tuple[list[dict[str, Any]], str | None]:
    """One page of rows that are all at hand, each with a text of its own under `key`."""
    if params.cursor:
        (after,) = decode_cursor(params.cursor, [str])
        places = [place for place, row in enumerate(rows, 1) if row[key] == after]
        if not places:
            raise InvalidCursor
        rows = rows[places[0] :]
    rest = rows[params.limit :]
    return rows[: params.limit], encode_cursor([rows[params.limit - 1][key]]) if rest else None


def _column(item: Any) -> Any:
    return item.element if isinstance(item, UnaryExpression) else item


def _after(order: Sequence[Any], columns: Sequence[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    falling = [isinstance(item, UnaryExpression) and item.modifier is operators.desc_op for item in order]
    held = [literal(value, column.type) for column, value in zip(columns, values, strict=True)]
    if len(set(falling)) == 1:
        # Compared as a row, an index goes to the place at once; said with OR, it reads all that comes before.
        row, after = (tuple_(*columns), tuple_(*held)) if len(columns) > 1 else (columns[0], held[0])
        return row < after if falling[0] else row > after
    clauses = []
    for index, falls in enumerate(falling):
        step = columns[index] < held[index] if falls else columns[index] > held[index]
        clauses.append(and_(*(columns[i] == held[i] for i in range(index)), step))
    # The first column alone bounds what is read.
    bound = columns[0] <= held[0] if falling[0] else columns[0] >= held[0]
    return and_(bound, or_(*clauses))
