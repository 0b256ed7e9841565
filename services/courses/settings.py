"""Settings of the courses service."""

from pathlib import Path

from kit.settings import ServiceSettings, from_env


class Settings(ServiceSettings):
    """What courses reads from the environment."""

    database_url: str = from_env("COURSES_DATABASE_URL", "PostgreSQL of courses, postgresql+asyncpg://…", "")
    media_folder: Path | None = from_env(
        "COURSES_MEDIA", "folder of the lessons' media files; unset: media in HEIKA_DATA", None
    )
    bucket: str = from_env("COURSES_S3_BUCKET", "bucket of the lessons' media files; unset: the folder", "")
    bucket_endpoint: str = from_env("COURSES_S3_ENDPOINT", "address of an S3-compatible store; unset: AWS", "")
    bucket_region: str = from_env("COURSES_S3_REGION", "region of the bucket", "")
    bucket_prefix: str = from_env("COURSES_S3_PREFIX", "what the names of all media files in the bucket begin with", "")
    bucket_access_key: str = from_env("COURSES_S3_ACCESS_KEY", "unset: the environment's or the machine's own", "")
    bucket_secret_key: str = from_env("COURSES_S3_SECRET_KEY", "secret of COURSES_S3_ACCESS_KEY", "")
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
