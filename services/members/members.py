"""What every feature says of a member that is not there."""

from kit.errors import NotFound


class MemberNotFound(NotFound):
    """There is no such member."""

    zh = "没有这位会员。"
