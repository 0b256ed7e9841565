"""The embedded data stores: PostgreSQL and Valkey from their wheels, each a child process that loses nothing."""

from onebox.postgres import Postgres
from onebox.valkey import Valkey

__all__ = ["Postgres", "Valkey"]
