"""A database that is away, told from one that refuses what it is asked."""

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_LOST = (
    *(OperationalError, InterfaceError, PoolTimeout, ConnectionError, TimeoutError),
    *(
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ),  # of the driver itself, where it is asked without SQLAlchemy
)


def is_disconnect(failure: BaseException) -> bool:
    """Whether a database call failed because the database is away, rather than because of what was asked."""
    if isinstance(failure, _LOST):
        return True
    # 57P01..57P03: shut down, crash shutdown, cannot connect now; 08xxx: connection exceptions; 53300: too many.
    state = getattr(getattr(failure, "orig", failure), "sqlstate", None) or ""
    return (
        (isinstance(failure, DBAPIError) and failure.connection_invalidated)
        or state[:2] == "08"
        or state in ("57P01", "57P02", "57P03", "53300")
    )
