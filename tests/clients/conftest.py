"""The clients are used against a Heika as a newcomer starts it."""

from tests.onebox.conftest import heika

__all__ = ["heika"]
