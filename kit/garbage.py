"""Garbage collection of a server: what its start left is looked at no more, and a crowd in flight is not over and over."""

import gc
from typing import Final

THRESHOLDS: Final = (200_000, 20, 10)
"""Five thousand requests in flight are a quarter of a million living objects; by Python's own numbers, looking through
them took as long as answering them, and with fifty thousand still a fifth of that. What a request leaves, no search has
to find: `gc.DEBUG_SAVEALL` shows the rings that would be left."""


def settle() -> None:
    """Set what is there now apart: call it once a process has started."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
