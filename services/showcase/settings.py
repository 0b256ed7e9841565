"""Settings of the showcase service."""

from pathlib import Path

from kit.settings import ServiceSettings, from_env

SANDBOX_KEY = "heika-sandbox-showcase-key"
KEY_LENGTH = 32


class Settings(ServiceSettings):
    """What showcase reads from the environment."""

    database_url: str = from_env("SHOWCASE_DATABASE_URL", "PostgreSQL of showcase, postgresql+asyncpg://…", "")
    image_workers: int = from_env("SHOWCASE_IMAGE_WORKERS", "pictures decoded at the same time in one process", 2)
    images_waiting: int = from_env("SHOWCASE_IMAGES_WAITING", "uploads that may wait for a decoder before 503", 32)

    showcase_key: str = from_env(
        "SHOWCASE_KEY",
        "secret that keeps voters' addresses unreadable, 32 characters or more; keep it while a contest is open",
        "",
    )

    @property
    def key(self) -> str:
        """The showcase key, the sandbox's own unless one is set; ValueError in production without a long one."""
        if self.sandbox:
            return self.showcase_key or SANDBOX_KEY
        if len(self.showcase_key) < KEY_LENGTH:
            raise ValueError(f"SHOWCASE_KEY needs {KEY_LENGTH} characters or more in production")
        return self.showcase_key

    @property
    def uploads(self) -> Path:
        """The folder the pictures are kept in; shared by every process of this service."""
        return self.data / "uploads"
