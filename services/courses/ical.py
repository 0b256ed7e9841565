"""Live lessons in iCalendar's words (RFC 5545), each in the zone it is held in."""

from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from icalendar import Calendar, Event, Timezone

from services.courses.models import LiveLesson

STATUS: Final = {"canceled": "CANCELLED"}


def calendar(lessons: list[LiveLesson], public_url: str) -> bytes:
    """A calendar of these lessons."""
    shown = Calendar()
    shown.add("prodid", "-//Heika//live lessons//ZH")
    shown.add("version", "2.0")
    shown.add("x-wr-calname", "Heika 直播课")
    for zone in sorted({lesson.zone for lesson in lessons}):
        first = min(lesson.starts_at for lesson in lessons if lesson.zone == zone).date()
        last = max(lesson.ends_at for lesson in lessons if lesson.zone == zone).date()
        shown.add_component(Timezone.from_tzid(zone, first_date=first, last_date=last + timedelta(days=366)))
    for lesson in lessons:
        shown.add_component(_event(lesson, public_url))
    content: bytes = shown.to_ical()
    return content


def _event(lesson: LiveLesson, public_url: str) -> Any:
    zone = ZoneInfo(lesson.zone)
    event = Event()
    event.add("uid", f"{lesson.id}@heika")
    event.add("sequence", lesson.version)
    event.add("dtstamp", lesson.updated_at)
    event.add("dtstart", lesson.starts_at.astimezone(zone))
    event.add("dtend", lesson.ends_at.astimezone(zone))
    event.add("summary", lesson.title)
    event.add("description", lesson.description)
    event.add("url", f"{public_url}/v1/live-lessons/{lesson.id}")
    event.add("status", STATUS.get(lesson.status, "CONFIRMED"))
    return event
