"""Admins: who runs the house, their passwords under Argon2id, and the first of them from the environment."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.auth import SCOPES
from kit.ids import new_id
from services.members.models import Admin
from services.members.tokens import end_sessions

# OWASP's first choice for Argon2id: 19 MiB, two passes, one lane; 26 ms here, where the library's own costs 199.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Each verification takes 19 MiB and a core: no more at a time than leave the others some.
_hands = ThreadPoolExecutor(2, thread_name_prefix="password")


@cache
def _nobody() -> str:
    """A hash no password has, so that an unknown email takes as long as a wrong password."""
    return _hasher.hash(str(new_id()))


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


async def check_password(admin: Admin | None, password: str) -> bool:
    """Whether this is the admin's password; as slow for nobody as for somebody."""
    loop = asyncio.get_running_loop()
    good = await loop.run_in_executor(_hands, lambda: _matches(admin.password_hash if admin else _nobody(), password))
    return good and admin is not None


async def find_admin(session: AsyncSession, email: str) -> Admin | None:
    """The admin with this email, in any case of its letters."""
    return (await session.execute(select(Admin).where(col(Admin.email) == email.strip().lower()))).scalar_one_or_none()


async def create_admin(rt: Runtime, email: str, password: str, scopes: Iterable[str] | None = None) -> Admin:
    """Make an admin, or give an existing one this password and these scopes (None: all there are, also in future).

    Asking again with the same changes nothing; a changed password ends the admin's sessions. ValueError for an empty
    password, an email without @, or an unknown scope.
    """
    wanted = sorted(set(scopes or ()))
    if unknown := set(wanted) - SCOPES.keys():
        raise ValueError(f"unknown scopes {sorted(unknown)}")
    if "@" not in email or not password:
        raise ValueError("an admin needs an email and a password")
    async with rt.db.session() as session, session.begin():
        admin = await find_admin(session, email)
        if admin is None:
            made = Admin(
                email=email.strip().lower(),
                password_hash=await asyncio.to_thread(_hasher.hash, password),
                scopes=wanted,
                created_at=clock.now(),
            )
            await session.execute(insert(Admin).values(made.model_dump()).on_conflict_do_nothing())
            # Written just now, by us or by whoever was faster.
            admin = (await session.execute(select(Admin).where(col(Admin.email) == made.email))).scalar_one()
        if not await check_password(admin, password):
            admin.password_hash = await asyncio.to_thread(_hasher.hash, password)
            await end_sessions(session, admin.id)
        if scopes is not None:
            admin.scopes = wanted
    return admin
