"""The table of what can be found in courses."""

from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlmodel import Field

from services.courses.models import Model


class CourseText(Model, table=True):
    """A course's text and its lessons', folded: the words it is ranked by, the pieces of Chinese it is found by.

    It may be older than the course; `Course.indexed_version` says of which version it is.
    """

    __tablename__ = "course_text"
    __table_args__ = (
        Index("course_text_pieces", text("course_pieces(pieces)"), postgresql_using="gin"),
        Index("course_text_document", "document", postgresql_using="gin", postgresql_ops={"document": "gin_trgm_ops"}),
    )

    course_id: UUID = Field(primary_key=True, foreign_key="course.id")
    title: str
    titles: str
    document: str
    words: Any = Field(sa_column=Column(TSVECTOR, nullable=False))
    pieces: str
