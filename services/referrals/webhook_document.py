"""The webhooks of the OpenAPI document: every event that a partner may be told, with its headers and an example."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Header

from services.referrals.webhook_events import TOLD, Told, example_of

webhooks = APIRouter(tags=["partner webhooks"])

MessageId = Annotated[
    str,
    Header(
        alias="webhook-id", description="同一消息的重试与重放保持不变 / stays the same through all retries and replays"
    ),
]
Stamp = Annotated[
    int, Header(alias="webhook-timestamp", description="发送时刻（Unix 秒）/ when it was sent, seconds since 1970")
]
Signature = Annotated[
    str,
    Header(
        alias="webhook-signature",
        description="v1,base64(HMAC-SHA256(密钥, id.timestamp.body))；轮换后的 24 小时内有多个，以空格分隔 / several for 24 "
        "hours after a rotation, separated by spaces",
    ),
]

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    "410": {"description": "不再需要：停用此地址 / never again: disables the endpoint"},
    "default": {
        "description": "其余（包括 3XX，以及 15 秒内没有答复）都按失败处理，之后按计划重试，遵守 Retry-After / everything else, "
        "3XX and silence for 15 seconds included, is a failure and tried again by the schedule, not before Retry-After"
    },
}


def _document(kind: str, told: type[Told[Any, Any]]) -> None:
    example = {"event": {"summary": kind, "value": example_of(kind)}}

    async def receive(
        body: Annotated[told, Body(openapi_examples=example)],  # type: ignore[valid-type]  # one for each type
        webhook_id: MessageId,
        webhook_timestamp: Stamp,
        webhook_signature: Signature,
    ) -> None:
        """Hear of it."""

    name = f"hear_{kind.replace('.', '_')}"
    webhooks.add_api_route(
        kind,
        receive,
        methods=["POST"],
        name=name,
        operation_id=name,
        status_code=204,
        response_description="已收到；任何 2XX 都算 / heard, as any other 2XX says",
        summary=told.words,
        description=told.__doc__ or "",
        responses=_ANSWERS,
    )


for _kind, _told in TOLD.items():
    _document(_kind, _told)
