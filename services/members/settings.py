"""Settings of the members service."""

from typing import Annotated, cast

from fastapi import Depends, Request

from kit.settings import ServiceSettings, from_env

SANDBOX_KEY = "heika-sandbox-members-key"
KEY_LENGTH = 32


class Settings(ServiceSettings):
    """What the members service reads beside the common settings."""

    database_url: str = from_env("MEMBERS_DATABASE_URL", "PostgreSQL of members, postgresql+asyncpg://…", "")
    members_key: str = from_env(
        "MEMBERS_KEY",
        "secret that hashes and seals phones and seals signing keys, 32 characters or more; never change it",
        "",
    )
    admin_email: str = from_env("HEIKA_ADMIN_EMAIL", "the first admin's email", "")
    admin_password: str = from_env(
        "HEIKA_ADMIN_PASSWORD", "the first admin's password; a changed one is taken over", ""
    )
    sms_url: str = from_env(
        "MEMBERS_SMS_URL", "SMS gateway that takes POST {phone, code} and {phone, text}; unset in the sandbox", ""
    )
    sms_token: str = from_env("MEMBERS_SMS_TOKEN", "bearer token for the SMS gateway", "")
    wechat_url: str = from_env("MEMBERS_WECHAT_URL", "base address of WeChat's server", "https://api.weixin.qq.com")
    wechat_app_id: str = from_env("MEMBERS_WECHAT_APP_ID", "the mini program's app id; unset in the sandbox", "")
    wechat_app_secret: str = from_env("MEMBERS_WECHAT_APP_SECRET", "the mini program's app secret", "")

    @property
    def key(self) -> str:
        """The members key, the sandbox's own unless one is set; ValueError in production without a long one."""
        if self.sandbox:
            return self.members_key or SANDBOX_KEY
        if len(self.members_key) < KEY_LENGTH:
            raise ValueError(f"MEMBERS_KEY needs {KEY_LENGTH} characters or more in production")
        return self.members_key


async def settings_of(request: Request) -> Settings:
    """This process' settings."""
    return cast("Settings", request.app.state.runtime.settings)


SettingsDep = Annotated[Settings, Depends(settings_of)]
