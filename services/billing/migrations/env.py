"""Alembic's entry for the billing service."""

from kit.migrations import run_env

run_env()
