"""Search by words: what courses say, cut and indexed beside them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table; it is filled while the service runs."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.add_column("course", sa.Column("indexed_version", sa.Integer, nullable=False, server_default="0"))
    op.create_index("course_not_indexed", "course", ["id"], postgresql_where=sa.text("indexed_version <> version"))
    op.create_table(
        "course_text",
        sa.Column("course_id", sa.Uuid, sa.ForeignKey("course.id"), primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("titles", sa.String, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("words", TSVECTOR, nullable=False),
        sa.Column("pieces", TSVECTOR, nullable=False),
        sa.Column("cut", sa.Boolean, nullable=False),
    )
    op.create_index("course_text_pieces", "course_text", ["pieces"], postgresql_using="gin")
    op.create_index(
        "course_text_document",
        "course_text",
        ["document"],
        postgresql_using="gin",
        postgresql_ops={"document": "gin_trgm_ops"},
    )
    op.create_index("course_text_cut", "course_text", ["course_id"], postgresql_where=sa.text("cut"))


def downgrade() -> None:
    """Drop it; the extension may have other users."""
    op.drop_table("course_text")
    op.drop_index("course_not_indexed", "course")
    op.drop_column("course", "indexed_version")
