"""Settings of the courses service."""

from pathlib import Path

from kit.settings import ServiceSettings, from_env


class Settings(ServiceSettings):
    """What courses reads from the environment."""

    database_url: str = from_env("COURSES_DATABASE_URL", "PostgreSQL of courses, postgresql+asyncpg://…", "")
    media_folder: Path | None = from_env(
        "COURSES_MEDIA", "folder of the lessons' media files; unset: media in HEIKA_DATA", None
    )

    live_amount: int = from_env(
        "COURSES_LIVE_AMOUNT", "what a live lesson costs, in fen, whose way to buy it names no amount", 990
    )
    livekit_url: str = from_env("LIVEKIT_URL", "wss://… of a LiveKit server, which makes it the provider of rooms", "")
    livekit_api_key: str = from_env("LIVEKIT_API_KEY", "key of the LiveKit project", "")
    livekit_api_secret: str = from_env("LIVEKIT_API_SECRET", "secret of the LiveKit project", "")

    @property
    def media(self) -> Path:
        """The folder of the lessons' media files."""
        return self.media_folder or self.data / "media"
