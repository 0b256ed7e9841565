"""Alembic's entry for the courses service."""

from kit.migrations import run_env

run_env()
