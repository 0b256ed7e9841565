"""When an unknown outcome is asked for again: after 1 minute, 5 minutes, 1 hour, and then daily, until the provider says."""

from datetime import datetime, timedelta

STEPS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1))
DAY = timedelta(days=1)


def next_chase(since: datetime, now: datetime) -> datetime:
    """The first moment after `now` to ask about what has been unknown since then."""
    for step in STEPS:
        if since + step > now:
            return since + step
    return since + DAY * ((now - since) // DAY + 1)
