"""Alembic's entry for the members service."""

from kit.migrations import run_env

run_env()
