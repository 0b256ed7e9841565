"""The first tables of members."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from kit.migrations import create_kit_tables_1, drop_kit_tables_1

revision = "0001"
down_revision = None

TABLES = (
    "plan_benefits",
    "early_revocation",
    "membership_version",
    "segment",
    "audit_entry",
    "admin",
    "signing_key",
    "refresh_token",
    "login_session",
    "sandbox_sms",
    "otp",
    "point_entry",
    "check_in",
    "identity",
    "member",
)


def upgrade() -> None:
    """Create them."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    create_kit_tables_1()
    _people()
    _sign_in()
    _time()


def downgrade() -> None:
    """Drop them; the extension stays, others may use it."""
    for table in TABLES:
        op.drop_table(table)
    drop_kit_tables_1()


def _instant(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, sa.DateTime(timezone=True), **({"nullable": False} | options))


def _people() -> None:
    """People, how they are recognised, and what they collect."""
    op.create_table(
        "member",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("nickname", sa.String, nullable=False),
        sa.Column("avatar_url", sa.String),
        sa.Column("city", sa.String),
        sa.Column("bio", sa.String),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("roles", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("labels", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("frozen", sa.Boolean, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("evidence", JSONB, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("erased_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="member_pkey"),
    )
    op.create_index("member_created_at_id_idx", "member", ["created_at", "id"])
    op.create_index("member_frozen_idx", "member", ["id"], postgresql_where=sa.text("frozen"))
    op.create_index("member_labels_idx", "member", ["labels"], postgresql_using="gin")
    op.create_index(
        "member_nickname_trgm_idx",
        "member",
        ["nickname"],
        postgresql_using="gin",
        postgresql_ops={"nickname": "gin_trgm_ops"},
    )
    op.create_index("member_roles_idx", "member", ["roles"], postgresql_using="gin")
    op.create_table(
        "identity",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("masked", sa.String, nullable=False),
        sa.Column("sealed", sa.String, nullable=False),
        _instant("created_at"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="identity_member_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="identity_pkey"),
        sa.UniqueConstraint("kind", "digest", name="identity_kind_digest_key"),
        sa.UniqueConstraint("member_id", "kind", name="identity_member_id_kind_key"),
    )
    op.create_table(
        "check_in",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("streak", sa.Integer, nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        _instant("at"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="check_in_member_id_fkey"),
        sa.PrimaryKeyConstraint("member_id", "day", name="check_in_pkey"),
    )
    op.create_table(
        "point_entry",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("delta", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("reference", sa.String, nullable=False),
        _instant("at"),
        sa.PrimaryKeyConstraint("id", name="point_entry_pkey"),
        sa.UniqueConstraint("member_id", "reason", "reference", name="point_entry_member_id_reason_reference_key"),
    )
    op.create_index("point_entry_member_id_at_idx", "point_entry", ["member_id", "at", "id"])


def _sign_in() -> None:
    """Codes, sessions, keys and admins."""
    op.create_table(
        "otp",
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("code_hash", sa.LargeBinary, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        _instant("sent_at"),
        _instant("expires_at"),
        _instant("used_at", nullable=True),
        sa.PrimaryKeyConstraint("digest", name="otp_pkey"),
    )
    op.create_index("otp_expires_at_idx", "otp", ["expires_at"])
    op.create_table(
        "sandbox_sms",
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="sandbox_sms_pkey"),
    )
    op.create_table(
        "login_session",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        _instant("created_at"),
        _instant("last_seen_at"),
        _instant("expires_at"),
        _instant("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="login_session_pkey"),
    )
    op.create_index("login_session_expires_at_idx", "login_session", ["expires_at"])
    op.create_index(
        "login_session_revoked_at_idx",
        "login_session",
        ["revoked_at"],
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )
    op.create_index("login_session_subject_id_idx", "login_session", ["subject_id"])
    op.create_table(
        "refresh_token",
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        _instant("expires_at"),
        _instant("used_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["login_session.id"], name="refresh_token_session_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="refresh_token_pkey"),
    )
    op.create_index("refresh_token_session_id_idx", "refresh_token", ["session_id"])
    op.create_table(
        "signing_key",
        sa.Column("kid", sa.String, nullable=False),
        sa.Column("public", JSONB, nullable=False),
        sa.Column("sealed", sa.String, nullable=False),
        _instant("created_at"),
        _instant("retired_at", nullable=True),
        sa.PrimaryKeyConstraint("kid", name="signing_key_pkey"),
    )
    op.create_table(
        "admin",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("password_hash", sa.String, nullable=False),
        sa.Column("scopes", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        _instant("created_at"),
        sa.PrimaryKeyConstraint("id", name="admin_pkey"),
        sa.UniqueConstraint("email", name="admin_email_key"),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("actor", sa.Uuid, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        _instant("at"),
        sa.PrimaryKeyConstraint("id", name="audit_entry_pkey"),
    )
    op.create_index("audit_entry_actor_idx", "audit_entry", ["actor"])
    op.create_index("audit_entry_at_id_idx", "audit_entry", ["at", "id"])
    op.create_index("audit_entry_target_idx", "audit_entry", ["target"])


def _time() -> None:
    """The time ledger."""
    op.create_table(
        "segment",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("source_id", sa.Uuid, nullable=False),
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("months", sa.Integer, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("benefits", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        _instant("added_at"),
        _instant("not_before", nullable=True),
        _instant("revoked_at", nullable=True),
        _instant("starts_at", nullable=True),
        _instant("ends_at", nullable=True),
        sa.CheckConstraint(
            "(months > 0 AND days = 0) OR (months = 0 AND days > 0)", name="segment_months_or_days_check"
        ),
        sa.CheckConstraint("starts_at IS NULL OR starts_at <= ends_at", name="segment_span_check"),
        sa.PrimaryKeyConstraint("id", name="segment_pkey"),
        sa.UniqueConstraint("source", "source_id", name="segment_source_source_id_key"),
    )
    op.create_index("segment_member_id_ends_at_idx", "segment", ["member_id", "ends_at"])
    op.create_table(
        "membership_version",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("member_id", name="membership_version_pkey"),
    )
    op.create_table(
        "early_revocation",
        sa.Column("source", sa.String, nullable=False),
        sa.Column("source_id", sa.Uuid, nullable=False),
        _instant("revoked_at"),
        sa.PrimaryKeyConstraint("source", "source_id", name="early_revocation_pkey"),
    )
    op.create_table(
        "plan_benefits",
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("benefits", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        _instant("seen_at"),
        sa.PrimaryKeyConstraint("plan_code", name="plan_benefits_pkey"),
    )
