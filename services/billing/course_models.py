"""The tables of course sales: what a course costs, who bought it, which will never be held."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, Column, String
from sqlmodel import Field

from kit.db import instant
from services.billing.registry import Model


class CoursePrice(Model, table=True):
    """A course as courses last told it; `version` is courses' own."""

    __tablename__ = "course_price"

    course_id: UUID = Field(primary_key=True)
    version: int
    title: str
    access: Literal["free", "member", "paid"] = Field(sa_type=String)
    amount: int | None = Field(default=None, sa_column=Column(BigInteger))
    currency: str
    published: bool


class CanceledLesson(Model, table=True):
    """A live lesson that courses canceled: what was paid for it goes back, and nothing more is taken."""

    __tablename__ = "canceled_lesson"

    lesson_id: UUID = Field(primary_key=True)
    canceled_at: datetime = Field(sa_column=instant())


class CourseHolding(Model, table=True):
    """The one order through which a member has a course, so that nobody pays for it twice."""

    __tablename__ = "course_holding"

    member_id: UUID = Field(primary_key=True)
    course_id: UUID = Field(primary_key=True)
    order_id: UUID = Field(foreign_key="order.id", unique=True)
    bought_at: datetime = Field(sa_column=instant())
