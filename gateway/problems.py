"""The refusals that are the gateway's own."""

from kit.errors import BadRequest, Conflict, Forbidden, NotFound, Problem, Unavailable


class AmbiguousPath(BadRequest):
    """This path can be read in more than one way; send it without dots, doubled slashes or escaped separators."""

    zh = "这个路径有歧义，请去掉多余的点、重复的斜杠或转义的分隔符。"


class AmbiguousAuthorization(BadRequest):
    """There is more than one Authorization header; send exactly one."""

    zh = "请求里有多个 Authorization 头，请只发送一个。"


class NoSuchPath(NotFound):
    """There is nothing here under this address."""

    zh = "这里没有你要找的内容。"
    code = "not_found"


class ForeignOrigin(Forbidden):
    """Pages of this origin may not open sockets here; ask for it to be listed in HEIKA_ALLOWED_ORIGINS."""

    zh = "该来源的页面不能在这里建立连接，请把它加入 HEIKA_ALLOWED_ORIGINS。"


class SocketRefused(Forbidden):
    """No socket opens at this address for you; ask with an ordinary request instead."""

    zh = "这个地址不能为你建立 WebSocket 连接，请改用普通请求。"


class BadUpstream(Problem):
    """The service behind this address gave an answer that cannot be passed on; try again."""

    status = 502
    zh = "后面的服务给出了无法转发的应答，请重试。"


class UpstreamUnavailable(Unavailable):
    """The service behind this address cannot be reached at the moment; try again after Retry-After."""

    zh = "后面的服务暂时连不上，请按 Retry-After 稍后再试。"


class UpstreamTimeout(Problem):
    """The service behind this address did not answer in time; look whether it took effect, then try again."""

    status = 504
    zh = "后面的服务没有及时应答，请先确认操作是否已生效，再重试。"


class ClockBackward(Conflict):
    """The clock only moves forward; name a later instant."""

    zh = "时钟只能向前拨，请给出更晚的时刻。"
