"""What keeps a command from a service's database or from Redis, said so that the reader knows what to do."""

import contextlib
import os
from collections.abc import Iterator

from onebox.environment import database_variable
from onebox.trouble import Trouble


class OutOfReach(Trouble):
    """A database or Redis does not answer, or has nothing that can be read."""


@contextlib.contextmanager
def reaching(service: str) -> Iterator[None]:
    """Tell of settings and servers that are not there; what else goes wrong is raised as it is."""
    if not os.environ.get(database_variable(service)):
        variable = database_variable(service)
        raise OutOfReach(
            f"{variable} is not set: run this with the environment of {service}.",
            f"未设置 {variable}:请在 {service} 的环境中运行。",
        )
    try:
        yield
    except Exception as error:
        if told := _told(service, error):
            raise OutOfReach(*told) from error
        raise


def _told(service: str, error: Exception) -> tuple[str, str] | None:
    from redis.exceptions import ConnectionError as NoRedis  # noqa: PLC0415 - loaded when something went wrong
    from sqlalchemy.exc import ArgumentError, DBAPIError  # noqa: PLC0415

    variable = database_variable(service)
    why = str(error).splitlines()[0]
    state = getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""
    if isinstance(error, NoRedis):
        return (
            f"Redis does not answer ({why}). Start it, or correct REDIS_URL.",
            f"Redis 无响应({why})。请启动它,或改正 REDIS_URL。",
        )
    if isinstance(error, ArgumentError | ModuleNotFoundError):
        return (
            f"{variable} is no address of a database ({why}); such as postgresql+asyncpg://user:password@host/{service}.",
            f"{variable} 不是数据库地址({why}),应形如 postgresql+asyncpg://user:password@host/{service}。",
        )
    if state == "42P01":
        return (
            f"The database of {service} has no tables yet: `python -m onebox migrate` makes them.",
            f"{service} 的数据库还没有表:请先运行 python -m onebox migrate。",
        )
    if state in {"55P03", "57014"}:
        return (
            f"The database of {service} was too busy ({why}). Nothing of this step has changed; run it again at a quieter hour.",
            f"{service} 的数据库太忙({why}),这一步没有改动任何内容,请在空闲时重试。",
        )
    if isinstance(error, OSError) or state == "3D000" or state.startswith(("08", "28", "57P")):
        return (
            f"The database of {service} cannot be reached ({why}). Start it, or correct {variable}.",
            f"无法连接 {service} 的数据库({why})。请启动它,或改正 {variable}。",
        )
    return None
