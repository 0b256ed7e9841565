"""Settings of the referrals service."""

from kit.settings import CommaList, ServiceSettings, from_env


class Settings(ServiceSettings):
    """What referrals reads from the environment."""

    database_url: str = from_env("REFERRALS_DATABASE_URL", "PostgreSQL of referrals, postgresql+asyncpg://…", "")
    coupon_keys: CommaList = from_env(
        "HEIKA_COUPON_KEY", "keys of coupon tokens; commas; the first signs, all of them verify", ()
    )
    invite_url: str = from_env(
        "REFERRALS_INVITE_URL", "page an invitation opens, with {code} in it; unset: /i/{code} at HEIKA_PUBLIC_URL", ""
    )

    def invite_link(self, code: str) -> str:
        """The address that an invitation with this code opens."""
        template = self.invite_url or f"{self.public_url.rstrip('/')}/i/{{code}}"
        return template.replace("{code}", code)
