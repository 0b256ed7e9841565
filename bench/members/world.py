"""A members database of any size, filled by COPY: who is measured against in this folder."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from rich.progress import Progress

from kit.vault import open_vault
from services.members.settings import SANDBOX_KEY

BATCH = 20_000
TWO_YEARS = timedelta(days=730)
WORDS = [
    "草莓",
    "可颂",
    "戚风",
    "芋泥",
    "抹茶",
    "焦糖",
    "肉桂",
    "海盐",
    "奶油",
    "蛋挞",
    "吐司",
    "曲奇",
    "慕斯",
    "泡芙",
    "月饼",
    "青团",
    "酥饼",
    "布朗尼",
    "提拉米苏",
    "贝果",
]
TIERS = ("potential",) * 6 + ("beginner",) * 3 + ("enthusiast", "expert")

MEMBER = ["id", "nickname", "tier", "roles", "labels", "frozen", "note", "evidence", "version", "created_at"]
IDENTITY = ["id", "member_id", "kind", "digest", "masked", "sealed", "created_at"]
SEGMENT = [
    "id",
    "member_id",
    "source",
    "source_id",
    "plan_code",
    "months",
    "days",
    "benefits",
    "added_at",
    "starts_at",
    "ends_at",
]


def member_id(number: int) -> UUID:
    """The id of the n-th member."""
    return UUID(int=(0x0193_0000_0000_7000_8000_0000_0000_0000 + (number << 24)))


def nickname(number: int) -> str:
    """A name as people choose them: two words that many have, and a number few have."""
    return f"{WORDS[number % 20]}{WORDS[number // 20 % 20]}{number * 7919 % 1_000_003:06}"


def phone(number: int) -> str:
    """The phone of the n-th member."""
    return f"+86138{number:08}"


def rows(
    numbers: range, size: int, sealed: str, digest: Any
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]]:
    """Member, phone and segment of each of these."""
    now = datetime.now(UTC)
    for number in numbers:
        key, at = member_id(number), now - TWO_YEARS * (1 - number / size)
        labels = ["vip"] if number % 50 == 0 else []
        yield (
            (key, nickname(number), TIERS[number % 11], [], labels, False, "", "{}", 1, at),
            (key, key, "phone", digest("phone", phone(number)), "138****0000", sealed, at),
            (
                *(key, key, "order", key, "black-card-12m", 12, 0, ["member_lessons"]),
                *(at, at, at + timedelta(days=365)),
            ),
        )


READ_DAILY = ("segment", "segment_member_id_ends_at_idx", "member_nickname_trgm_idx", "member_nickname_grams_idx")


async def warm(url: str) -> None:
    """Have in PostgreSQL's memory what a database that has run for a day holds there: what everybody reads."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        for relation in READ_DAILY:
            await connection.execute("SELECT pg_prewarm($1::text)", relation)
    finally:
        await connection.close()


async def load(url: str, size: int) -> None:
    """Fill a migrated database that is empty; its secondary indexes are built once the rows are there."""
    vault = open_vault(SANDBOX_KEY)
    sealed = vault.seal(phone(0))
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        if await connection.fetchval("SELECT EXISTS (SELECT FROM member)"):
            return
        found = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'member' AND indexname <> 'member_pkey'"
        indexes = await connection.fetch(found)
        for index in indexes:
            await connection.execute(f'DROP INDEX "{index["indexname"]}"')
        with Progress() as progress:
            task = progress.add_task(f"{size:,} members", total=size + len(indexes))
            for first in range(0, size, BATCH):
                batch = list(rows(range(first, min(first + BATCH, size)), size, sealed, vault.digest))
                tables = (("member", MEMBER, 0), ("identity", IDENTITY, 1), ("segment", SEGMENT, 2))
                for table, columns, place in tables:
                    # One member in three has bought a card.
                    records = [row[place] for row in batch[:: 3 if table == "segment" else 1]]
                    await connection.copy_records_to_table(table, records=records, columns=columns)
                progress.advance(task, len(batch))
            for index in indexes:
                await connection.execute(index["indexdef"])
                progress.advance(task)
        await connection.execute("VACUUM (ANALYZE)")
        # What was loaded must not be written while somebody measures.
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
