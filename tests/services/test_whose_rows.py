"""Every table that names a member is thought of when accounts merge, when a member leaves, and in the export."""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import sqlalchemy

from contracts.members import MemberErased, MemberMerged
from contracts.schemas import TELLERS
from kit.app import Service
from services.members import export, merging, profile

PERSON = re.compile(
    r"(^|_)(member|inviter|invitee|newcomer|subject|voter|author|buyer|payer|owner|beneficiary|instructor|reporter"
    r"|asker|redeemer|asked_by|redeemed_by|reported_by|answered_by)(_id)?$"
)

NOT_MERGED = {
    "members.login_session": "the sessions of a merged account end; both log in again as one",
    "members.membership_version": "a version only ever grows, and each account's picture is told under its own",
    "billing.member_time": "the new pictures of both accounts come from members as MembershipChanged",
    "billing.sandbox_delivery": "the subject of a letter is an object of the provider",
    "courses.access": "the new pictures of both accounts come from members as MembershipChanged",
    "referrals.coupon_benefit": "the new pictures of both accounts come from members as MembershipChanged",
    "*.merged_member": "is what says who was merged",
}
NOT_FORGOTTEN = {
    "members.segment": "time that was paid is a record of money; it names nobody",
    "members.membership_version": "a counter, which names nobody",
    "members.renewal": "billing ends it and tells so; it names nobody",
    "members.login_session": "ended, and deleted some days later by a job; it names nobody",
    "billing.coupon_use": "a record of money",
    "billing.course_holding": "a record of money",
    "billing.redeem_code": "a record of what was given for it",
    "billing.sandbox_delivery": "the subject of a letter is an object of the provider",
    "referrals.coupon": "a record of money",
    "referrals.invite_code": "leads to an account without a name",
    "referrals.attribution": "a record of what is owed",
    "referrals.commission": "a record of what is owed",
    "referrals.fraud_case_member": "what a case is about, without a name",
    "referrals.reward": "a record of what is owed",
    "referrals.reward_budget": "how much is owed still",
    "showcase.vote": "votes stand, of an account without a name",
    "*.merged_member": "keeps what comes late from founding the account anew",
}
NOT_EXPORTED = {
    "courses.course": "names a profile, which is exported as its member's own",
    "members.membership_version": "a counter of ours",
    "billing.sandbox_delivery": "the subject of a letter is an object of the provider",
    "*.merged_member": "two ids of the same account",
}


def service_of(name: str) -> Service:
    found: Service = import_module(f"services.{name}.app").service
    return found


def tables_about_members(name: str) -> Iterator[tuple[str, list[str]]]:
    for table in service_of(name).metadata.sorted_tables:
        columns = [
            column.name for column in table.c if PERSON.search(column.name) and isinstance(column.type, sqlalchemy.Uuid)
        ]
        if columns:
            yield table.name, columns


def excused(name: str, table: str, reasons: dict[str, str]) -> bool:
    return f"{name}.{table}" in reasons or f"*.{table}" in reasons


def mentions(source: str, table: str, columns: list[str]) -> bool:
    model = "".join(part.capitalize() for part in table.split("_"))
    named = re.search(rf"\b{table}\b|\b{model}\b", source.replace("ORDER BY", ""))
    return named is not None and all(column in source for column in columns)


def source_of(*functions: Any) -> str:
    """The text of the modules in which these are."""
    return "\n".join(inspect.getsource(sys.modules[name]) for name in {function.__module__ for function in functions})


@pytest.mark.parametrize("name", TELLERS)
def test_every_table_about_members_follows_a_merge(name: str) -> None:
    if name == "members":
        source = inspect.getsource(merging)
    else:
        on_member_merged: Any
        on_member_merged, *_ = service_of(name).handlers[MemberMerged]
        source = source_of(on_member_merged.__self__.move)
    missing = [
        table
        for table, columns in tables_about_members(name)
        if not mentions(source, table, columns) and not excused(name, table, NOT_MERGED)
    ]
    assert missing == []


@pytest.mark.parametrize("name", TELLERS)
def test_every_table_about_members_is_thought_of_when_one_leaves(name: str) -> None:
    if name == "members":
        source = inspect.getsource(profile)
    else:
        # What follows merges is among them, and is not what forgets.
        handlers = service_of(name).handlers[MemberErased]
        source = source_of(*(handler for handler in handlers if inspect.isfunction(handler)))
    missing = [
        table
        for table, columns in tables_about_members(name)
        if not mentions(source, table, columns) and not excused(name, table, NOT_FORGOTTEN)
    ]
    assert missing == []


@pytest.mark.parametrize("name", TELLERS)
def test_every_table_about_members_is_in_the_export(name: str) -> None:
    service = service_of(name)
    if name == "members":
        source = inspect.getsource(export)
        missing = [table for table, columns in tables_about_members(name) if not mentions(source, table, columns)]
    else:
        missing = [
            table
            for table, columns in tables_about_members(name)
            if "member_id" not in columns and table not in service.personal
        ]
    assert [table for table in missing if not excused(name, table, NOT_EXPORTED)] == []


def test_no_excuse_is_left_of_a_table_that_is_gone() -> None:
    tables = {f"{name}.{table}" for name in TELLERS for table in service_of(name).metadata.tables}
    for reasons in (NOT_MERGED, NOT_FORGOTTEN, NOT_EXPORTED):
        assert {excuse for excuse in reasons if not excuse.startswith("*.")} <= tables
