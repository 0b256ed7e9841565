"""Alembic's entry for every service; kit.migrations says which."""

from kit.migrations import run_env

run_env()
