"""The tables of the members service."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from kit.db import UNCHECKED, instant, new_registry
from kit.ids import new_id


class Model(SQLModel, registry=new_registry()):
    """The base of this service's tables."""

    model_config = UNCHECKED


def _words() -> Column[list[str]]:
    return Column(ARRAY(String), nullable=False, server_default=text("'{}'"))


class Member(Model, table=True):
    """A person; an erased one keeps this row, without anything that names them, as does one merged into another."""

    __tablename__ = "member"
    __table_args__ = (
        Index("member_created_at_id_idx", "created_at", "id"),
        Index(
            "member_nickname_trgm_idx", "nickname", postgresql_using="gin", postgresql_ops={"nickname": "gin_trgm_ops"}
        ),
        Index("member_nickname_grams_idx", text("nickname_grams(nickname)"), postgresql_using="gin"),
        Index("member_frozen_idx", "id", postgresql_where=text("frozen")),
        Index("member_tier_idx", "tier", "created_at", "id"),
        Index("member_labels_idx", "labels", postgresql_using="gin"),
        Index("member_roles_idx", "roles", postgresql_using="gin"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    nickname: str
    avatar_url: str | None = None
    city: str | None = None
    bio: str | None = None
    language: str = Field(default="zh-CN", sa_column_kwargs={"server_default": "zh-CN"})
    tier: str = "potential"
    proven_tier: str = Field(default="potential", sa_column_kwargs={"server_default": "potential"})
    roles: list[str] = Field(default_factory=list, sa_column=_words())
    roles_by_admin: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    labels: list[str] = Field(default_factory=list, sa_column=_words())
    frozen: bool = False
    note: str = ""
    evidence: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    erased_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    merged_into: UUID | None = Field(default=None, foreign_key="member.id")


class Identity(Model, table=True):
    """A way a member is recognised: phone, WeChat openid or unionid; found by digest, readable only with the key."""

    __tablename__ = "identity"
    __table_args__ = (
        UniqueConstraint("kind", "digest"),
        UniqueConstraint("member_id", "kind"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID = Field(foreign_key="member.id")
    kind: str
    digest: str
    masked: str
    sealed: str
    created_at: datetime = Field(sa_column=instant())


class Certificate(Model, table=True):
    """A proof of qualification that a member applied with, one open at a time, and what an admin decided."""

    __tablename__ = "certificate"
    __table_args__ = (
        Index("certificate_member_id_idx", "member_id", "created_at", "id"),
        Index("certificate_status_idx", "status", "created_at", "id"),
        Index("certificate_open_idx", "member_id", unique=True, postgresql_where=text("status = 'pending'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID = Field(foreign_key="member.id")
    title: str
    issuer: str = ""
    proof_url: str
    status: str = "pending"
    reason: str | None = None
    created_at: datetime = Field(sa_column=instant())
    decided_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    decided_by: UUID | None = None


class Otp(Model, table=True):
    """The one live code of a phone."""

    __tablename__ = "otp"

    digest: str = Field(primary_key=True)
    code_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    tries: int = 0
    sent_at: datetime = Field(sa_column=instant())
    expires_at: datetime = Field(sa_column=instant(index=True))
    used_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SandboxSms(Model, table=True):
    """The last code "sent" to a phone; written in the sandbox only."""

    __tablename__ = "sandbox_sms"

    digest: str = Field(primary_key=True)
    code: str


class SandboxWechatUser(Model, table=True):
    """A mini-program user to log in as; written in the sandbox only."""

    __tablename__ = "sandbox_wechat_user"

    js_code: str = Field(primary_key=True)
    openid: str
    unionid: str | None = None


class LoginSession(Model, table=True):
    """A device somebody is logged in on: one family of refresh tokens."""

    __tablename__ = "login_session"
    __table_args__ = (
        Index("login_session_subject_id_idx", "subject_id"),
        Index("login_session_last_seen_at_idx", "last_seen_at"),
        Index("login_session_revoked_at_idx", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    subject_id: UUID
    role: str
    scope: str = ""
    device: str = ""
    created_at: datetime = Field(sa_column=instant())
    last_seen_at: datetime = Field(sa_column=instant())
    expires_at: datetime = Field(sa_column=instant(index=True))
    revoked_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class RefreshToken(Model, table=True):
    """A refresh token by its hash; a used one is kept so that its second use is noticed."""

    __tablename__ = "refresh_token"

    token_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    session_id: UUID = Field(foreign_key="login_session.id", ondelete="CASCADE", index=True)
    expires_at: datetime = Field(sa_column=instant(index=True))
    used_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SigningKey(Model, table=True):
    """An Ed25519 key of the access tokens; the oldest that has not retired signs, all of them verify."""

    __tablename__ = "signing_key"

    kid: str = Field(primary_key=True)
    public: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    sealed: str
    created_at: datetime = Field(sa_column=instant())
    retired_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Admin(Model, table=True):
    """Somebody who runs the house, with the scopes they hold; `totp_step` is the last one-time password used."""

    __tablename__ = "admin"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    email: str = Field(unique=True)
    password_hash: str
    scopes: list[str] = Field(default_factory=list, sa_column=_words())
    totp_secret: str | None = None
    totp_step: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    totp_enabled: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    failures: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    locked_until: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    created_at: datetime = Field(sa_column=instant())


class CheckIn(Model, table=True):
    """A member was here on this business day."""

    __tablename__ = "check_in"

    member_id: UUID = Field(foreign_key="member.id", primary_key=True)
    day: date = Field(primary_key=True)
    streak: int
    points: int
    at: datetime = Field(sa_column=instant())


class PointEntry(Model, table=True):
    """Points given or taken, once for each reason and its reference."""

    __tablename__ = "point_entry"
    __table_args__ = (
        UniqueConstraint("member_id", "reason", "reference"),
        Index("point_entry_member_id_at_idx", "member_id", "at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    delta: int = Field(sa_column=Column(BigInteger, nullable=False))
    reason: str
    reference: str
    at: datetime = Field(sa_column=instant())


class MemberImport(Model, table=True):
    """People from a file, waiting to be written or written; `done` is how far the job is."""

    __tablename__ = "member_import"
    __table_args__ = (
        Index("member_import_pending_idx", "created_at", "id", postgresql_where=text("status = 'pending'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    file_name: str
    status: str = "pending"
    rows: int
    done: int = 0
    created: int = 0
    updated: int = 0
    sealed: str | None = None
    requested_by: UUID
    created_at: datetime = Field(sa_column=instant())
    finished_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class AuditEntry(Model, table=True):
    """One act of an admin: what was before and after it."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        Index("audit_entry_at_id_idx", "at", "id"),
        Index("audit_entry_target_idx", "target"),
        Index("audit_entry_actor_idx", "actor"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    actor: UUID
    action: str
    target: str
    before: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    after: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    at: datetime = Field(sa_column=instant())
