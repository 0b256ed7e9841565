"""Signals of votes: what an address, a device and an invitation become before they are stored beside a vote."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.merging import kept_of
from contracts.referrals import MemberInvited
from kit.app import Runtime
from kit.http import client_address
from kit.vault import Vault, open_vault

VISITOR: Final = "x-visitor-id"
"""The header in which apps name the device by the id they keep on it, as in touches and at registration."""
LONGEST_VISITOR: Final = 200
VISITOR_HEADER: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "X-Visitor-Id",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": LONGEST_VISITOR},
            "description": "the id that the app keeps on the device, as in touches and at registration",
        }
    ]
}
"""`openapi_extra=` of calls that look at it: read by hand, as the hottest call should do nothing it need not."""
IPV4_PREFIX, IPV6_PREFIX = 24, 48

TREE: Final = "convert_to(coalesce(m.tree_id::text, 'code ' || m.invite_code, {member}::text), 'UTF8')"
"""In SQL, the invite tree of a member with the card `m`: by the root, the code they came with, or of their own."""


def sign(value: str, secret: str = "c.signal_secret") -> str:  # noqa: S107 - names a column
    """In SQL, the digest of a value that compares with others of the same contest only."""
    return f"substr(sha256({value} || {secret}), 1, 8)"


@asynccontextmanager
async def keyed(rt: Runtime) -> AsyncIterator[None]:
    """Have the key before the first vote comes."""
    rt.state["vault"] = open_vault(rt.settings.key)
    yield


def signals_of(request: Request, rt: Runtime) -> tuple[bytes | None, bytes | None]:
    """Digests of the address' prefix and of the device named by the app, as far as there are any."""
    visitor = request.headers.get(VISITOR)
    device = device_of(visitor) if visitor and len(visitor) <= LONGEST_VISITOR else None
    return address_of(rt.state["vault"], client_address(request)), device


def device_of(visitor_id: str) -> bytes:
    """What is kept of a device's own id, which is random: nobody finds it by trying."""
    return sha256(b"device " + visitor_id.encode()).digest()[:16]


@lru_cache(maxsize=20_000)
def address_of(vault: Vault, address: str) -> bytes | None:
    """What is kept of an address: a keyed digest of its /24 (IPv6: /48); None for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    network = ip_network((parsed, IPV4_PREFIX if parsed.version == 4 else IPV6_PREFIX), strict=False)  # noqa: PLR2004
    return bytes.fromhex(vault.digest("address", str(network)))[:16]


_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext('invite trees'))")
_ROOT: Final = text("SELECT coalesce((SELECT tree_id FROM member_card WHERE member_id = :id), :id)")
_GRAFT: Final = text("""
INSERT INTO member_card (member_id, nickname, tree_id) VALUES (:member, '', :root)
ON CONFLICT (member_id) DO UPDATE SET tree_id = excluded.tree_id
""")
_FOLLOW: Final = text("UPDATE member_card SET tree_id = :root WHERE tree_id = :member")


async def on_member_invited(session: AsyncSession, event: MemberInvited) -> None:
    """Whoever was invited belongs to the tree of who invited them, and so do all they invited, in any order of the news."""
    await _graft(session, await kept_of(session, event.member_id), await kept_of(session, event.inviter_id))


async def _graft(session: AsyncSession, member_id: UUID, inviter_id: UUID) -> None:
    await session.execute(_LOCK)
    root: UUID = (await session.execute(_ROOT, {"id": inviter_id})).scalar_one()
    if root == member_id:
        return
    await session.execute(_GRAFT, {"member": member_id, "root": root})
    await session.execute(_FOLLOW, {"member": member_id, "root": root})


async def join_trees(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Whoever was invited by a merged account was invited by the kept one."""
    await session.execute(_LOCK)
    root = (await session.execute(_ROOT, {"id": kept_id})).scalar_one()
    await session.execute(_FOLLOW, {"member": merged_id, "root": root})


# A registration or an invitation may have been heard of after the vote.
_REFRESH: Final = text(f"""
UPDATE vote v SET tree = {sign(TREE.format(member="m.member_id"))},
    device = coalesce({sign("m.device")}, v.device)
FROM member_card m, contest c
WHERE c.id = :contest AND v.contest_id = c.id AND m.member_id = v.member_id
    AND (v.tree <> {sign(TREE.format(member="m.member_id"))}
        OR (m.device IS NOT NULL AND v.device IS DISTINCT FROM {sign("m.device")}))
""")  # noqa: S608 - put together from parts of our own
_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('signals ' || :contest, 0))")


async def refresh_signals(session: AsyncSession, contest_id: Any) -> None:
    """Bring what was heard of voters after they voted to the signals of a contest that is not settled."""
    # Two dry runs at once would wait for each other's votes in a ring.
    await session.execute(_ONE_AT_A_TIME, {"contest": str(contest_id)})
    await session.execute(_REFRESH, {"contest": contest_id})
