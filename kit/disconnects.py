"""A database that is away, or cannot write, told from one that refuses what it is asked."""

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kit.errors import DatabaseUnavailable

_LOST = (
    *(OperationalError, InterfaceError, PoolTimeout, ConnectionError, TimeoutError, DatabaseUnavailable),
    *(
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ),  # of the driver itself, where it is asked without SQLAlchemy
)


def is_disconnect(failure: BaseException) -> bool:
    """Whether a database call failed because of how the database is, away or full, rather than because of what was asked."""
    if isinstance(failure, _LOST):
        return True
    # 57P01..57P03: shut down, crash shutdown, cannot connect now; 08xxx: connection exceptions; 53xxx: disk full, out of
    # memory, too many connections; 25006: read only, as a primary is that was replaced.
    state = getattr(getattr(failure, "orig", failure), "sqlstate", None) or ""
    return (
        (isinstance(failure, DBAPIError) and failure.connection_invalidated)
        or state[:2] in ("08", "53")
        or state in ("57P01", "57P02", "57P03", "25006")
    )
