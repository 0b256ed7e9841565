"""Amounts and instants as people read them."""

from datetime import datetime

from kit import clock

SYMBOLS = {"CNY": "¥", "HKD": "HK$", "USD": "US$"}


def money(amount: int, currency: str) -> str:
    """An amount as people read it, such as ¥19.90."""
    return f"{SYMBOLS.get(currency, currency + ' ')}{amount // 100:,}.{amount % 100:02}"


def moment_zh(at: datetime) -> str:
    """An instant in the business zone, to the minute, in Chinese."""
    local = at.astimezone(clock.ZONE)
    return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"


def moment_en(at: datetime) -> str:
    """An instant in the business zone, to the minute, in English."""
    local = at.astimezone(clock.ZONE)
    return f"{local.day} {local:%B %Y, %H:%M}"
