"""The sandbox's catalogue: 267 baking micro-lessons, imported as an admin would."""

from pathlib import Path

from sqlalchemy import select
from sqlmodel import col

from kit.app import Runtime
from services.courses.catalogue import import_rows
from services.courses.imports import read_rows
from services.courses.models import Course

CATALOGUE = Path(__file__).with_name("catalogue.csv")


async def seed(runtime: Runtime) -> None:
    """Fill an empty catalogue; one with any course in it, even a deleted one, is left alone."""
    async with runtime.db.session() as session, session.begin():
        if (await session.execute(select(col(Course.id)).limit(1))).first() is None:
            await import_rows(session, read_rows(CATALOGUE.read_bytes()))
