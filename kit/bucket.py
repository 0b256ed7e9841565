"""A bucket of an S3-compatible store: how a service's settings name it, and what its failures become."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store

from kit.errors import Unavailable

log = structlog.get_logger(__name__)

CONNECT_WITHIN: Final = timedelta(seconds=3)
TRIES: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}


class BucketSettings(Protocol):
    """The settings of a service that may keep its files in a bucket; what is empty is the environment's own."""

    bucket: str
    bucket_endpoint: str
    bucket_region: str
    bucket_prefix: str
    bucket_access_key: str
    bucket_secret_key: str


def open_bucket(settings: BucketSettings, answer_within: timedelta) -> S3Store:
    """The bucket; one request may take so long, and is tried again twice."""
    known = {
        "endpoint": settings.bucket_endpoint,
        "region": settings.bucket_region,
        "access_key_id": settings.bucket_access_key,
        "secret_access_key": settings.bucket_secret_key,
    }
    given: dict[str, Any] = {name: value for name, value in known.items() if value}
    return S3Store(
        settings.bucket,
        prefix=settings.bucket_prefix or None,
        client_options={
            "allow_http": settings.bucket_endpoint.startswith("http:"),
            "connect_timeout": CONNECT_WITHIN,
            "timeout": answer_within,
        },
        retry_config=TRIES,  # type: ignore[arg-type]  # a TypedDict of just these
        **given,
    )


@contextmanager
def told_as(problem: type[Unavailable]) -> Iterator[None]:
    """Whatever the store fails with becomes this problem, "not found" where something is put as well: no bucket."""
    try:
        yield
    except (BaseError, OSError) as failure:
        # TimeoutError is an OSError. The words name the object and never a key.
        log.warning("bucket away", problem=problem.code, error=str(failure)[:300])
        raise problem(retry_after=5) from failure
