"""Prizes: which final ranks of a contest win what."""

from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kit.shapes import Count, StrictIn, Text
from kit.wording import Wrong

MAX_PRIZES = 50
MOST: Final = {"membership_days": 3660, "points": 10_000_000, "coupon": 10_000_000}
Rank = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Reward(StrictIn):
    """What is won: days of membership, points, or a coupon of so many fen (or of the campaign named)."""

    kind: Literal["membership_days", "points", "coupon"]
    value: Count | Text(1, 64)  # type: ignore[valid-type]  # Text() makes a type

    @model_validator(mode="after")
    def _is_countable(self) -> Self:
        if not isinstance(self.value, int):
            if self.kind != "coupon":
                raise Wrong(f"{self.kind} is a number", f"{self.kind} 应为数字")
        elif not 1 <= self.value <= MOST[self.kind]:
            raise Wrong(f"{self.kind} is 1 to {MOST[self.kind]}", f"{self.kind} 应在 1 到 {MOST[self.kind]} 之间")
        return self


class Prize(StrictIn):
    """A prize for the final ranks from `from` to `to`."""

    first: Rank = Field(alias="from")
    last: Rank = Field(alias="to")
    title: Text(1, 120)  # type: ignore[valid-type]  # Text() makes a type
    reward: Reward

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.last < self.first:
            raise Wrong("to must not be below from", "to 不能小于 from")
        return self


def _apart(prizes: list[Prize]) -> list[Prize]:
    ordered = sorted(prizes, key=lambda prize: prize.first)
    if any(later.first <= earlier.last for earlier, later in pairwise(ordered)):
        raise Wrong("a rank wins one prize: spans must not overlap", "一个名次只有一份奖品，名次范围不能重叠")
    return prizes


Prizes = Annotated[list[Prize], Field(max_length=MAX_PRIZES), AfterValidator(_apart)]
"""The prizes of a contest, no rank in two of them."""
