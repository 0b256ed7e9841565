"""Settings of the courses service."""

from pathlib import Path

from kit.settings import ServiceSettings, from_env


class Settings(ServiceSettings):
    """What courses reads from the environment."""

    database_url: str = from_env("COURSES_DATABASE_URL", "PostgreSQL of courses, postgresql+asyncpg://…", "")
    media_folder: Path | None = from_env(
        "COURSES_MEDIA", "folder of the lessons' media files; unset: media in HEIKA_DATA", None
    )

    @property
    def media(self) -> Path:
        """The folder of the lessons' media files."""
        return self.media_folder or self.data / "media"
