"""A caller's connection: heads that are slow or swollen are refused, silent readers cut, and a stop loses no request."""

from asyncio import TimerHandle, Transport
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from kit.answering import Cycle
from kit.errors import BadRequest, Problem
from kit.ids import new_id

HEAD_SECONDS: Final = 10.0
"""How long a request's line and headers may take to arrive, and a new connection may stay silent."""
HEAD_BYTES: Final = 32 * 1024
HEAD_LINES: Final = 100
STALLED_SECONDS: Final = 60.0
"""How long an answer may wait for a caller who does not read it."""
LINGER_SECONDS: Final = 0.3
"""How long a process that stops still takes a request that was on its way over a connection kept open."""
CLASS: Final = "kit.connection:Connection"
"""What uvicorn is told to speak HTTP with."""
SOCKETS: Final = "kit.connection:websocket"
LARGEST_FRAME: Final = 1024 * 1024


class RequestTimeout(Problem):
    """The request took too long to arrive; check the connection and send it again."""

    status = 408
    zh = "请求迟迟没有传完，请检查网络后重新发送。"


class HeadTooLarge(Problem):
    """The address and headers of this request are larger than 32 KiB or more than 100; send less of them."""

    status = 431
    zh = "请求的地址和头部超过 32 KiB 或 100 行，请精简后重试。"


class _Refusal:
    """The app of a request whose head is enough to refuse it."""

    def __init__(self, problem: type[Problem]) -> None:
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.problem().response("zh", str(new_id()))
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


_SWOLLEN: Final = _Refusal(HeadTooLarge)
_REFUSED: Final = _Refusal(BadRequest)


class Connection(HttpToolsProtocol):
    """One connection of uvicorn's, with the time-outs and bounds that it has none of itself."""

    _head_timer: TimerHandle | None = None
    _stall_timer: TimerHandle | None = None
    _in_head = False
    _arrived = 0
    _stopping = False
    _only_listens = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for the first request, but not for ever."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._heads_done()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; whatever is not a whole head by now has a time limit."""
        self._arrived += len(data)
        super().data_received(data)
        if self._head_timer is None and self._is_waiting() and not self.transport.is_closing() and self._is_ours():
            self._await_head()
        if self._in_head and self._arrived > HEAD_BYTES:
            self._refuse(HeadTooLarge())

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's own hangs up on everybody
        """A caller who has asked and now only listens gets the answer; one who breaks off in the middle is gone."""
        if not self._is_ours() or self._is_waiting() or self._body_is_due() or self.cycle.response_started:
            return None
        self._only_listens = True
        return True

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole: the request may begin, unless it is swollen or does not say whom it asks."""
        self._heads_done()
        app = self.app
        if len(self.headers) > HEAD_LINES or (self._arrived > HEAD_BYTES and self._head_size() > HEAD_BYTES):
            self.app = _SWOLLEN
        elif [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            # RFC 9112 3.2: whoever stands in front and reads another of two names would let the request pass for another.
            self.app = _REFUSED
        elif any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            # RFC 9112 6.1: it would be read as if it were not coded.
            self.app = _REFUSED
        self._in_head, self._arrived = False, 0
        before: RequestResponseCycle | None = self.cycle
        super().on_headers_complete()
        self.app = app
        if self.cycle is not before:
            # Its task has not begun; uvicorn has no other place to say which class it makes.
            self.cycle.__class__ = Cycle
        if self._stopping and not self._is_waiting():
            self.cycle.keep_alive = False
        # What comes after a body (trailers) would be appended to the headers that the app has.
        self.headers = [*self.headers]

    def on_response_complete(self) -> None:
        """The next request may come; while the process stops, only one that is on its way already."""
        super().on_response_complete()
        if self._only_listens and self._is_waiting():
            self.transport.close()
        if self._stopping and not self.pipeline and not self.transport.is_closing():
            self._linger()

    def shutdown(self) -> None:
        """The process stops: answer what has come and what is on its way, saying that the connection ends."""
        self._stopping = True
        if self._is_waiting():
            self._linger()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        elif isinstance(self.cycle, Cycle) and self.cycle.is_endless:
            # Whoever follows it comes back by itself, to the process that follows this one.
            self.transport.write(b"0\r\n\r\n")
            self.transport.close()

    def pause_writing(self) -> None:
        """The caller does not read what it is sent."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as everything is refused; `msg` says nothing that a caller could use."""
        del msg
        self._refuse(BadRequest())

    def _is_waiting(self) -> bool:
        # uvicorn holds None until the first request, whatever it declares.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or (cycle.response_complete and not self.pipeline)

    def _is_ours(self) -> bool:
        """False once the connection has become a WebSocket."""
        return self.transport.get_protocol() is self

    def _body_is_due(self) -> bool:
        """Whether what comes next belongs to the request that is being answered, rather than to one behind it."""
        return not self._is_waiting() and self.cycle.more_body and not self.pipeline

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _heads_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(RequestTimeout())
        else:
            self.transport.close()

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.timeout_keep_alive_handler)

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        unanswered = self._body_is_due() and not self.cycle.response_started
        if unanswered:
            # The app hears that its caller is gone, and has nobody left to answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._is_waiting() or unanswered:
            response = problem.response("zh", request_id := str(new_id()))
            lines = [*response.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
            head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
            self.transport.write(STATUS_LINE[problem.status] + head + b"\r\n" + bytes(response.body))
        self.transport.close()


def websocket(**options: Any) -> Any:
    """What uvicorn speaks WebSocket with, loaded when the first one comes: hardly anybody opens one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import (  # noqa: PLC0415
        WebSocketsSansIOProtocol,
    )

    return WebSocketsSansIOProtocol(**options)
