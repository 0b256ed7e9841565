"""Ways: what is known of a path before anything else of its request is looked at."""

from functools import lru_cache
from typing import Final, NamedTuple

from gateway.limits import class_of
from gateway.routes import Route, clean_path, find

LONGEST_KNOWN: Final = 200


class Way(NamedTuple):
    """A decoded path, its route, and the classes of limits that its GETs and its POSTs are counted in."""

    path: str
    route: Route
    reading: str
    changing: str


def way_of(raw: bytes) -> Way | None:
    """The way of a raw path; None where it leads nowhere, and PathTrick for one that could be read in two ways."""
    # Anybody may send paths of 32 KiB, of which no 4,096 are to be kept.
    return known(raw) if len(raw) <= LONGEST_KNOWN else _look(raw)


def _look(raw: bytes) -> Way | None:
    path = clean_path(raw)
    route = find(path)
    if route is None:
        return None
    return Way(path, route, class_of(route, "GET", path), class_of(route, "POST", path))


known = lru_cache(maxsize=4096)(_look)
"""`way_of`, which remembers what was asked."""
