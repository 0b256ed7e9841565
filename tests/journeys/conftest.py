"""The journeys start Heika as a newcomer does."""

from tests.onebox.conftest import heika

__all__ = ["heika"]
