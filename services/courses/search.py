"""Search: courses by the words in their titles and descriptions and in their lessons', the best first."""

import asyncio
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Integer, Subquery, TextClause, Uuid, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import Due, Runtime

# The table that is filled here belongs to the service's metadata.
from services.courses.search_models import CourseText as CourseText  # noqa: PLC0414
from services.courses.words import (
    HAN,
    LONGEST_WORD,
    asked_words,
    fold,
    is_loaded,
    lexemes,
    needs_dictionary,
    pieces,
    tsquery,
)

BATCH: Final = 50
IN_TITLE, IN_TITLES, IN_WORDS = 2_000_000, 1_000_000, 900_000
"""What it is worth that the whole question is in the course's title, in a lesson's, or its words anywhere."""
QUIET_S: Final = 20.0
"""How long after the start the dictionary is left where it is; what is not indexed is found anyway."""


async def matches(session: AsyncSession, asked: str) -> Subquery | None:
    """The `course_id` and `rank` of courses in which every word that is asked for can be found; None when nothing is asked."""
    whole = " ".join(fold(asked).split())
    if not whole:
        return None
    if needs_dictionary(whole) and not is_loaded():
        words = await asyncio.to_thread(asked_words, whole)
    else:
        words = asked_words(whole)
    shapes = tuple(_shape(word) for word in words)
    changed = (await session.execute(_NOT_INDEXED)).scalar_one()
    statement = _statement(shapes, now=bool(changed))
    values: dict[str, Any] = {"whole": _like(whole), "any": _any_of(words), "changed": changed}
    for number, (word, shape) in enumerate(zip(words, shapes, strict=True)):
        if shape != "piece" or changed:
            values[f"like{number}"] = _like(word)
        if shape != "plain":
            values[f"pieces{number}"] = [piece for run in HAN.findall(word) for piece in pieces(run)]
    statement = statement.bindparams(**values)
    return statement.columns(course_id=Uuid, rank=Integer).subquery("found")


def _shape(word: str) -> str:
    """How a word is looked for: as a piece, by its pieces and then as it is, or, where Chinese has no part, by pg_trgm.

    Of Chinese pg_trgm knows nothing where the database's locale is C.
    """
    if not HAN.search(word):
        return "plain"
    return "piece" if len(word) <= 2 and HAN.fullmatch(word) else "pieces"  # noqa: PLR2004 - characters


def _like(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _any_of(words: list[str]) -> str:
    """What raises the rank, as a tsquery."""
    plain = [part[:LONGEST_WORD] for word in words for run in HAN.split(word) for part in run.split() if part.isalnum()]
    return tsquery(plain + [part for word in words for run in HAN.findall(word) for part in (run, *pieces(run))], " | ")


_NOT_INDEXED: Final = text("SELECT ARRAY(SELECT id FROM course WHERE indexed_version <> version)")
_FOUND: Final = {
    "plain": "document LIKE :like{0}",
    "piece": "course_pieces(pieces) @> CAST(:pieces{0} AS text[])",
    "pieces": "course_pieces(pieces) @> CAST(:pieces{0} AS text[]) AND document LIKE :like{0}",
}
# The few that were changed a moment ago are looked through as they are.
_NOW: Final = """
(normalize(course.title, NFKC) ILIKE :like{0} OR normalize(course.description, NFKC) ILIKE :like{0} OR EXISTS (
    SELECT FROM lesson WHERE lesson.course_id = course.id AND lesson.deleted_at IS NULL
    AND (normalize(lesson.title, NFKC) ILIKE :like{0} OR normalize(lesson.description, NFKC) ILIKE :like{0})
))
"""


@lru_cache(maxsize=500)
def _statement(shapes: tuple[str, ...], *, now: bool) -> TextClause:
    found = " AND ".join(_FOUND[shape].format(number) for number, shape in enumerate(shapes))
    indexed = f"""
        SELECT course_id, CASE WHEN title LIKE :whole THEN {IN_TITLE} ELSE 0 END
            + CASE WHEN titles LIKE :whole THEN {IN_TITLES} ELSE 0 END
            + round(ts_rank(words, CAST(:any AS tsquery)) * {IN_WORDS})::int AS rank
        FROM course_text WHERE course_id <> ALL(CAST(:changed AS uuid[])) AND {found}
    """  # noqa: S608 - of constants
    if not now:
        return text(indexed)
    found = " AND ".join(_NOW.format(number) for number in range(len(shapes)))
    return text(f"""
        {indexed} UNION ALL
        SELECT id, CASE WHEN normalize(title, NFKC) ILIKE :whole THEN {IN_TITLE} ELSE 0 END + CASE WHEN EXISTS (
                SELECT FROM lesson WHERE lesson.course_id = course.id AND lesson.deleted_at IS NULL
                AND normalize(lesson.title, NFKC) ILIKE :whole
            ) THEN {IN_TITLES} ELSE 0 END
        FROM course WHERE id = ANY(CAST(:changed AS uuid[])) AND {found}
    """)  # noqa: S608 - of constants


_CHANGED: Final = text("""
SELECT course.id, course.version, course.title, course.description,
    coalesce(array_agg(lesson.title ORDER BY lesson.position) FILTER (WHERE lesson.id IS NOT NULL), '{}') AS titles,
    coalesce(array_agg(lesson.description ORDER BY lesson.position) FILTER (WHERE lesson.id IS NOT NULL), '{}') AS descriptions
FROM (SELECT * FROM course WHERE indexed_version <> version ORDER BY id LIMIT :batch) AS course
LEFT JOIN lesson ON lesson.course_id = course.id AND lesson.deleted_at IS NULL
GROUP BY course.id, course.version, course.title, course.description
""")
# One that was changed again meanwhile, or is being changed, waits for the next time.
_KEEP: Final = text("""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:versions AS int[]), CAST(:title AS text[]), CAST(:titles AS text[]),
        CAST(:document AS text[]), CAST(:words AS text[]), CAST(:pieces AS text[])
    ) AS asked (id, version, title, titles, document, words, pieces)
), held AS MATERIALIZED (
    SELECT course.id FROM course JOIN asked USING (id, version) WHERE indexed_version <> course.version
    ORDER BY course.id FOR UPDATE OF course SKIP LOCKED
), marked AS (
    UPDATE course SET indexed_version = version FROM held WHERE course.id = held.id
)
INSERT INTO course_text (course_id, title, titles, document, words, pieces)
SELECT id, title, titles, document, CAST(words AS tsvector), pieces FROM asked JOIN held USING (id)
ON CONFLICT (course_id) DO UPDATE SET title = excluded.title, titles = excluded.titles, document = excluded.document,
    words = excluded.words, pieces = excluded.pieces
RETURNING course_id
""")


async def _index(runtime: Runtime) -> int:
    """Cut the text of courses that were changed; as they are found without it, this counts as nothing done.

    A process that has just started leaves the dictionary where it is for a while.
    """
    now = asyncio.get_running_loop().time()
    begun = runtime.state.setdefault("search began", now)
    if runtime.settings.background and not is_loaded() and now < begun + QUIET_S:
        return 0
    kept = BATCH
    while kept == BATCH:
        async with runtime.db.session() as session:
            rows = (await session.execute(_CHANGED, {"batch": BATCH})).all()
        if not rows:
            break
        columns = await asyncio.to_thread(_columns, rows)
        async with runtime.db.session() as session, session.begin():
            kept = len((await session.execute(_KEEP, columns)).all())
    return 0


def _columns(rows: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {
        name: [] for name in ("ids", "versions", "title", "titles", "document", "words", "pieces")
    }
    for row in rows:
        titles, texts = "\n".join(row.titles), "\n".join((row.description, *row.descriptions))
        cut = lexemes(((row.title,), row.titles, (row.description,), row.descriptions))
        values = (row.id, row.version, fold(row.title), fold(titles), fold(f"{row.title}\n{titles}\n{texts}"), *cut)
        for column, value in zip(found.values(), values, strict=True):
            column.append(value)
    return found


index_courses = Due("index courses", _index, waits="SELECT FROM course WHERE indexed_version <> version")
