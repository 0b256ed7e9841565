"""Settings of the billing service."""

from typing import Literal

from pydantic import field_validator

from kit.settings import CommaList, ServiceSettings, from_env

SANDBOX_CODE_KEY = "heika-sandbox-billing-code-key"
KEY_LENGTH = 32


class Settings(ServiceSettings):
    """What billing reads from the environment."""

    database_url: str = from_env("BILLING_DATABASE_URL", "PostgreSQL of billing, postgresql+asyncpg://…", "")
    coupon_keys: CommaList = from_env(
        "HEIKA_COUPON_KEY", "keys of coupon tokens; commas; the first signs, all of them verify", ()
    )
    stripe_secret_key: str = from_env(
        "STRIPE_SECRET_KEY", "makes Stripe the provider, in the sandbox with test keys", ""
    )
    stripe_webhook_secrets: CommaList = from_env(
        "STRIPE_WEBHOOK_SECRET", "secrets of webhook signatures; commas; while one is rotated both are accepted", ()
    )
    stripe_api_base: str = from_env("STRIPE_API_BASE", "address of the provider's API; unset: Stripe's own", "")
    sandbox_webhook_url: str = from_env(
        "SANDBOX_WEBHOOK_URL", "where the sandbox provider sends its webhooks; unset: through HEIKA_PUBLIC_URL", ""
    )
    return_url: str = from_env(
        "BILLING_RETURN_URL",
        "where a payer returns to when the order named no success_url; unset: HEIKA_PUBLIC_URL",
        "",
    )
    order_minutes: int = from_env("BILLING_ORDER_MINUTES", "how long an order stays open without payment", 30)
    refund_days: int = from_env("BILLING_REFUND_DAYS", "how long after payment a member may take the money back", 7)
    card_refund_days: int = from_env(
        "BILLING_CARD_REFUND_DAYS", "how long after payment the provider gives money back to cards; 0: always", 0
    )
    alipay_refund_days: int = from_env(
        "BILLING_ALIPAY_REFUND_DAYS", "how long after payment the provider gives money back to Alipay; 0: always", 90
    )
    wechat_pay_refund_days: int = from_env(
        "BILLING_WECHAT_PAY_REFUND_DAYS",
        "how long after payment the provider gives money back to WeChat Pay, 180 days at Stripe; 0: always",
        180,
    )

    dispute_policy: Literal["opened", "lost", "never"] = from_env(
        "BILLING_DISPUTE_POLICY",
        "when a disputed payment takes its membership time away: opened, only when it is lost, or never",
        "opened",
    )

    code_key: str = from_env(
        "BILLING_CODE_KEY",
        "secret that makes and hashes gift and redeem codes, 32 characters or more; never change it",
        "",
    )
    gift_days: int = from_env("BILLING_GIFT_DAYS", "how long after payment a gift may be redeemed", 365)

    @field_validator("stripe_webhook_secrets", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @property
    def codes_key(self) -> str:
        """The key of codes, the sandbox's own unless one is set; ValueError in production without a long one."""
        if self.sandbox:
            return self.code_key or SANDBOX_CODE_KEY
        if len(self.code_key) < KEY_LENGTH:
            raise ValueError(f"BILLING_CODE_KEY needs {KEY_LENGTH} characters or more in production")
        return self.code_key

    @property
    def provider_refund_days(self) -> dict[str, int]:
        """By payment method, how many days after payment its money can go back; 0 for always."""
        return {
            "card": self.card_refund_days,
            "alipay": self.alipay_refund_days,
            "wechat_pay": self.wechat_pay_refund_days,
        }

    @property
    def simulated(self) -> bool:
        """Whether the sandbox's own provider takes the payments here."""
        return self.sandbox and not self.stripe_secret_key

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets a webhook may be signed with; the sandbox has one of its own, Stripe's must be given (ValueError)."""
        if self.stripe_webhook_secrets:
            return self.stripe_webhook_secrets
        if self.simulated:
            return ("whsec_heika_sandbox",)
        raise ValueError("STRIPE_WEBHOOK_SECRET is required: without it no webhook can be believed")
