"""Settings of the referrals service."""

from ipaddress import ip_network

from pydantic import field_validator

from kit.settings import CommaList, Network, ServiceSettings, from_env

SANDBOX_WEBHOOK_KEY = "heika-sandbox-referrals-webhook-key"
KEY_LENGTH = 32


class Settings(ServiceSettings):
    """What referrals reads from the environment."""

    database_url: str = from_env("REFERRALS_DATABASE_URL", "PostgreSQL of referrals, postgresql+asyncpg://…", "")
    coupon_keys: CommaList = from_env(
        "HEIKA_COUPON_KEY", "keys of coupon tokens; commas; the first signs, all of them verify", ()
    )
    invite_url: str = from_env(
        "REFERRALS_INVITE_URL", "page an invitation opens, with {code} in it; unset: /i/{code} at HEIKA_PUBLIC_URL", ""
    )

    channel_url: str = from_env(
        "REFERRALS_CHANNEL_URL",
        "page a channel's link opens, with {code} in it; unset: /c/{code} at HEIKA_PUBLIC_URL",
        "",
    )
    monthly_coupon_amount: int = from_env(
        "REFERRALS_MONTHLY_COUPON_AMOUNT",
        "fen that the black card's coupon of the month is worth; 0: there is none",
        300,
    )
    monthly_coupon_minimum: int = from_env(
        "REFERRALS_MONTHLY_COUPON_MINIMUM", "fen from which the coupon of the month can be spent", 1000
    )
    sealing_key: str = from_env(
        "REFERRALS_KEY",
        "secret that seals the secrets of partners' webhooks, 32 characters or more; never change it",
        "",
    )
    webhook_allow: CommaList = from_env(
        "WEBHOOK_ALLOW_CIDRS",
        "private networks that partners' webhooks may go to, by http, too; commas; for development",
        (),
    )

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @property
    def webhook_key(self) -> str:
        """The key of sealed secrets, the sandbox's own unless one is set; ValueError in production without a long one."""
        if self.sandbox:
            return self.sealing_key or SANDBOX_WEBHOOK_KEY
        if len(self.sealing_key) < KEY_LENGTH:
            raise ValueError(f"REFERRALS_KEY needs {KEY_LENGTH} characters or more in production")
        return self.sealing_key

    @property
    def webhook_networks(self) -> tuple[Network, ...]:
        """The networks that are open to webhooks although they are private; ValueError names a bad one."""
        return tuple(ip_network(item, strict=False) for item in self.webhook_allow)

    def invite_link(self, code: str) -> str:
        """The address that an invitation with this code opens."""
        return self._link(self.invite_url, "i", code)

    def channel_link(self, code: str) -> str:
        """The address that is published in the channel with this code."""
        return self._link(self.channel_url, "c", code)

    def _link(self, template: str, page: str, code: str) -> str:
        return (template or f"{self.public_url.rstrip('/')}/{page}/{{code}}").replace("{code}", code)
