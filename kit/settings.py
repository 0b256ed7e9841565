"""Settings by environment: those every process reads, and the base of each service's own."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = IPv4Network | IPv6Network
CommaList = Annotated[tuple[str, ...], NoDecode]
"""Text values separated by commas in the environment."""
LEVELS: Final = ("debug", "info", "warning", "error")


def from_env(name: str, description: str, default: Any = ...) -> Any:
    """A field read from exactly this environment variable."""
    return Field(default, validation_alias=AliasChoices(name), description=description)


class Settings(BaseSettings):
    """What every process reads. The embedded start sets `HEIKA_ENV=sandbox`; without it, production's rules hold."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    env: Literal["sandbox", "production"] = from_env(
        "HEIKA_ENV", "sandbox opens /v1/sandbox and the demo world; production closes them", "production"
    )
    redis_url: str = from_env(
        "REDIS_URL", "Redis or Valkey, for streams, limits and caches", "redis://127.0.0.1:6379/0"
    )
    limits_mode: Literal["strict", "relaxed", "off"] | None = from_env(
        "HEIKA_LIMITS", "rate limits: strict (production), relaxed (sandbox), off (measurements, sandbox only)", None
    )
    zone: str = from_env("HEIKA_ZONE", "business time zone, an IANA name", "Asia/Shanghai")
    public_url: str = from_env("HEIKA_PUBLIC_URL", "where the outside reaches the gateway", "http://127.0.0.1:8000")
    jwks_url: str = from_env(
        "HEIKA_JWKS_URL", "where members publishes its public keys", "http://127.0.0.1:8001/.well-known/jwks.json"
    )
    data: Path = from_env("HEIKA_DATA", "folder of the embedded stores and uploads", Path(".heika"))
    allowed_origins: CommaList = from_env(
        "HEIKA_ALLOWED_ORIGINS", "browser origins that may call the API, and where checkout may return to; commas", ()
    )
    trusted_proxies: CommaList = from_env(
        "HEIKA_TRUSTED_PROXIES", "CIDRs of proxies whose X-Forwarded-For counts; commas", ()
    )
    metrics_port: int | None = from_env("HEIKA_METRICS_PORT", "Prometheus metrics on this port; unset: none", None)
    metrics_host: str = from_env("HEIKA_METRICS_HOST", "the address that metrics are served on", "127.0.0.1")
    traces_endpoint: str | None = from_env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "where traces go, by OTLP over HTTP, such as http://collector:4318; unset: none",
        None,
    )
    traces_ratio: float = from_env("OTEL_TRACES_SAMPLER_ARG", "the share of traces that are sent, 0 to 1", 1.0)
    log_level: str = from_env("HEIKA_LOG_LEVEL", ", ".join(LEVELS), "info")

    @field_validator("allowed_origins", "trusted_proxies", "coupon_keys", mode="before", check_fields=False)
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, OSError, ValueError):
            raise ValueError("no IANA time zone, such as Asia/Shanghai / 不是 IANA 时区名") from None
        return value

    @field_validator("log_level")
    @classmethod
    def _is_a_level(cls, value: str) -> str:
        if value.lower() not in LEVELS:
            raise ValueError(f"choose one of / 可选 {', '.join(LEVELS)}")
        return value.lower()

    @field_validator("redis_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            good = parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
        except ValueError:
            good = False
        if not good:
            # What was given is not repeated: it may hold a password.
            raise ValueError("no address of Redis, such as redis://127.0.0.1:6379/0 / 不是 Redis 地址")
        return value

    @property
    def sandbox(self) -> bool:
        """Whether the sandbox's endpoints and demo world exist here."""
        return self.env == "sandbox"

    @property
    def limits(self) -> Literal["strict", "relaxed", "off"]:
        """The limits in force; `off` is refused in production."""
        mode = self.limits_mode or ("relaxed" if self.sandbox else "strict")
        if mode == "off" and not self.sandbox:
            raise ValueError("HEIKA_LIMITS=off is refused in production")
        return mode

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The trusted proxies as networks; ValueError names a bad one."""
        return tuple(ip_network(item, strict=False) for item in self.trusted_proxies)


class ServiceSettings(Settings):
    """What every service reads beside its own; subclasses name their database variable."""

    database_url: str = from_env("DATABASE_URL", "PostgreSQL of this service, postgresql+asyncpg://…", "")
    pool_size: int = from_env("HEIKA_POOL_SIZE", "database connections a service process keeps", 10)
    background: bool = from_env("HEIKA_BACKGROUND", "run relay, consumer and due work in this process", True)
    instance: str = from_env("HEIKA_INSTANCE", "this process' name in consumer groups; unique per replica", "")
