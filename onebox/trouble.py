"""What stops Heika from starting, said so that the reader knows what to do."""


class Trouble(Exception):
    """Carries the same advice in English and in Chinese; shown without a traceback."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en = en
        self.zh = zh


class FolderInUse(Trouble):
    """Another running Heika owns the data folder."""


class FolderBroken(Trouble):
    """The data folder cannot be used as it is."""


class StoreDidNotStart(Trouble):
    """PostgreSQL or Valkey ended while starting; its log says why."""
