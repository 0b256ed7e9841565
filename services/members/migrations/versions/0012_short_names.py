"""The one and two letters of nicknames, by which short searches find them: of these there are no trigrams."""

from alembic import op

revision = "0012"
down_revision = "0011"

_GRAMS = """
CREATE FUNCTION nickname_grams(name text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(DISTINCT substr(lower(name), place, size)), '{}')
    FROM generate_series(1, char_length(lower(name))) place, generate_series(1, 2) size
$$
"""


def upgrade() -> None:
    """Add them."""
    op.execute(_GRAMS)
    op.execute("CREATE INDEX member_nickname_grams_idx ON member USING gin (nickname_grams(nickname))")


def downgrade() -> None:
    """Drop them."""
    op.drop_index("member_nickname_grams_idx", "member")
    op.execute("DROP FUNCTION nickname_grams(text)")
