"""A partner's client: every call that Heika offers partners, one method each."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

import httpx

from heika_partner.calls import Calls, Refused
from heika_partner.shapes import (
    Commission,
    CommissionStatus,
    Delivery,
    DeliveryStatus,
    Endpoint,
    EndpointStatus,
    EndpointWithSecret,
    EventType,
    Partner,
    PartnerLink,
    Payout,
    Referral,
    Statement,
    read,
)

Shape = TypeVar("Shape")

_ENDPOINTS: Final = "/v1/partner/webhook-endpoints"


class Heika(Calls):
    """Heika, as a partner sees it.

    Every method may raise Refused with a stable `code`, or httpx.TransportError when there is no answer. Lists are
    iterators that fetch the next page when it is wanted; the newest comes first.
    """

    def __init__(
        self,
        address: str,
        client_id: str,
        client_secret: str,
        *,
        language: str = "zh-CN",
        timeout_s: float = 20.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`language`, zh-CN or en, is what refusals are told in; `transport` is httpx's, for proxies and tests."""
        client = httpx.Client(
            base_url=address,
            timeout=timeout_s,
            transport=transport,
            headers={"Accept-Language": language, "User-Agent": "heika-partner/0.1.0"},
        )
        super().__init__(client, client_id, client_secret)

    def me(self) -> Partner:
        """Who you are and what you earn; `notices` are what needs you."""
        return read(Partner, self._call("GET", "/v1/partner/me"))

    def create_link(self, title: str, *, channel: str | None = None) -> PartnerLink:
        """Make a link; whoever registers by it within the window is your referral."""
        return read(PartnerLink, self._call("POST", "/v1/partner/links", json={"title": title, "channel": channel}))

    def links(self) -> Iterator[PartnerLink]:
        """Your links."""
        return self._list(PartnerLink, "/v1/partner/links")

    def referrals(self) -> Iterator[Referral]:
        """The members your links brought, each with the furthest stage they reached."""
        return self._list(Referral, "/v1/partner/referrals")

    def commissions(self, *, status: CommissionStatus | None = None) -> Iterator[Commission]:
        """What you are or were owed."""
        return self._list(Commission, "/v1/partner/commissions", status=status)

    def statement(self, since: date | None = None, until: date | None = None) -> Statement:
        """What was earned, taken back and paid from the first day through the last; the latest month when left out."""
        days = {"from": since and since.isoformat(), "to": until and until.isoformat()}
        return read(Statement, self._call("GET", "/v1/partner/statement", params=_given(days)))

    def payouts(self) -> Iterator[Payout]:
        """What you were or will be paid."""
        return self._list(Payout, "/v1/partner/payouts")

    def event_types(self) -> list[EventType]:
        """What an endpoint may hear of."""
        return [read(EventType, one) for one in self._call("GET", "/v1/partner/event-types")["items"]]

    def create_endpoint(self, url: str, events: Sequence[str]) -> EndpointWithSecret:
        """Hear of events at an address; keep the `secret`, it is never shown again."""
        return read(EndpointWithSecret, self._call("POST", _ENDPOINTS, json={"url": url, "events": list(events)}))

    def endpoints(self) -> Iterator[Endpoint]:
        """Your endpoints."""
        return self._list(Endpoint, _ENDPOINTS)

    def endpoint(self, endpoint_id: UUID) -> Endpoint:
        """One endpoint."""
        return read(Endpoint, self._call("GET", f"{_ENDPOINTS}/{endpoint_id}"))

    def change_endpoint(
        self,
        endpoint_id: UUID,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        status: EndpointStatus | None = None,
    ) -> Endpoint:
        """Change what is given; `status="active"` starts an endpoint that was disabled."""
        body = _given({"url": url, "events": list(events) if events is not None else None, "status": status})
        return read(Endpoint, self._call("PATCH", f"{_ENDPOINTS}/{endpoint_id}", json=body))

    def delete_endpoint(self, endpoint_id: UUID) -> None:
        """Delete an endpoint and its log; one that is not there, after a lost answer say, is deleted already."""
        try:
            self._call("DELETE", f"{_ENDPOINTS}/{endpoint_id}")
        except Refused as refusal:
            if refusal.code != "webhook_endpoint_not_found":
                raise

    def rotate_secret(self, endpoint_id: UUID) -> EndpointWithSecret:
        """A new secret; for 24 hours messages are signed with the old one, too."""
        return read(EndpointWithSecret, self._call("POST", f"{_ENDPOINTS}/{endpoint_id}/rotate-secret"))

    def test_endpoint(self, endpoint_id: UUID) -> Delivery:
        """Send a test event; see `deliveries` for what came of it."""
        return read(Delivery, self._call("POST", f"{_ENDPOINTS}/{endpoint_id}/test"))

    def deliveries(self, endpoint_id: UUID, *, status: DeliveryStatus | None = None) -> Iterator[Delivery]:
        """What was sent to an endpoint, with every try."""
        return self._list(Delivery, f"{_ENDPOINTS}/{endpoint_id}/deliveries", status=status)

    def replay(self, delivery_id: UUID) -> Delivery:
        """Send a message again, under the same `webhook_id`."""
        return read(Delivery, self._call("POST", f"/v1/partner/deliveries/{delivery_id}/replay"))

    def replay_since(
        self,
        endpoint_id: UUID,
        since: datetime,
        until: datetime | None = None,
        *,
        status: DeliveryStatus | Literal["missed"] | None = None,
    ) -> int:
        """Send everything of a time again, failed and missed messages when no status is named; how many those are."""
        body = _given({"since": since.isoformat(), "until": until and until.isoformat(), "status": status})
        return int(self._call("POST", f"{_ENDPOINTS}/{endpoint_id}/replay", json=body)["replayed"])

    def _list(self, shape: type[Shape], path: str, **params: str | None) -> Iterator[Shape]:
        cursor: str | None = None
        while True:
            page = self._call("GET", path, params=_given(params | {"cursor": cursor}))
            for item in page["items"]:
                yield read(shape, item)
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
