"""Settings of the showcase service."""

from pathlib import Path

from kit.settings import ServiceSettings, from_env


class Settings(ServiceSettings):
    """What showcase reads from the environment."""

    database_url: str = from_env("SHOWCASE_DATABASE_URL", "PostgreSQL of showcase, postgresql+asyncpg://…", "")
    image_workers: int = from_env("SHOWCASE_IMAGE_WORKERS", "pictures decoded at the same time in one process", 2)
    images_waiting: int = from_env("SHOWCASE_IMAGES_WAITING", "uploads that may wait for a decoder before 503", 32)

    @property
    def uploads(self) -> Path:
        """The folder the pictures are kept in; shared by every process of this service."""
        return self.data / "uploads"
