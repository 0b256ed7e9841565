"""Alembic's entry for the referrals service."""

from kit.migrations import run_env

run_env()
