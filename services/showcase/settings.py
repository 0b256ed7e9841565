"""Settings of the showcase service."""

from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID

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

    entry_url: str = from_env(
        "SHOWCASE_ENTRY_URL",
        "page that shows a work, with {entry_id} in it; unset: /w/{entry_id} at HEIKA_PUBLIC_URL",
        "",
    )
    bucket: str = from_env("SHOWCASE_S3_BUCKET", "bucket the pictures are kept in; unset: a folder in HEIKA_DATA", "")
    bucket_endpoint: str = from_env("SHOWCASE_S3_ENDPOINT", "address of an S3-compatible store; unset: AWS", "")
    bucket_region: str = from_env("SHOWCASE_S3_REGION", "region of the bucket", "")
    bucket_prefix: str = from_env("SHOWCASE_S3_PREFIX", "what the names of all pictures in the bucket begin with", "")
    bucket_access_key: str = from_env("SHOWCASE_S3_ACCESS_KEY", "unset: the environment's or the machine's own", "")
    bucket_secret_key: str = from_env("SHOWCASE_S3_SECRET_KEY", "secret of SHOWCASE_S3_ACCESS_KEY", "")

    @property
    def uploads(self) -> Path:
        """The folder the pictures are kept in; shared by every process of this service."""
        return self.data / "uploads"

    def entry_link(self, entry_id: UUID, **credit: str) -> str:
        """The address that shows a work; `credit` is the `invite_code` or the `channel` of the touch it leads to."""
        page = (self.entry_url or f"{self.public_url.rstrip('/')}/w/{{entry_id}}").replace("{entry_id}", str(entry_id))
        return f"{page}{'&' if '?' in page else '?'}{urlencode(credit)}"
