"""Texts for the community's sixteen channels: what to post of a work, as long as each place takes and in its manner."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

LONGEST_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to say of a work; `honour` is its place or its votes, in words."""

    title: str
    story: str
    author: str
    contest: str
    honour: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: its name, how many characters a post may have, and how one is written around a link."""

    name: str
    length: int
    write: Callable[[Work, str, str], str]


def _headed(work: Work, story: str, link: str) -> str:
    return f"{work.title}｜{work.contest}{work.honour}\n\n{story}\n\n作者：{work.author}\n看作品：{link}"


def _chat(work: Work, story: str, link: str) -> str:
    return f"【{work.contest}】{work.author}的《{work.title}》{work.honour}。{story}\n{link}"


def _push(work: Work, story: str, link: str) -> str:
    return f"{work.author}的《{work.title}》{work.honour}，来看看是怎么做的。{story}{link}"


def _tagged(work: Work, story: str, link: str) -> str:
    return f"{work.title}\n{story}\n作者 @{work.author}，{work.contest}{work.honour}\n{link}\n#烘焙 #家庭烘焙 #晒作品"


def _note(work: Work, story: str, link: str) -> str:
    # Its headline may have 20 characters.
    return f"{cut(work.title, 20)}\n\n{story}\n\n{work.author}，{work.contest}{work.honour}\n{link}\n\n#烘焙日常 #新手烘焙 #晒作品"


def _micro(work: Work, story: str, link: str) -> str:
    return f"#家庭烘焙# {work.author}的《{work.title}》{work.honour}。{story} {link}"


def _answer(work: Work, story: str, link: str) -> str:
    return (
        f"第一次做《{work.title}》是什么体验？\n\n{story}\n\n——{work.author}，{work.contest}{work.honour}\n原文：{link}"
    )


def _recipe(work: Work, story: str, link: str) -> str:
    return f"《{work.title}》\n{story}\n{work.author}的作品，{work.contest}{work.honour}。做法见 {link}"


def _spoken(work: Work, story: str, _link: str) -> str:
    # Nobody can tap on what they hear.
    return f"今天想和大家分享一件作品，它叫《{work.title}》，作者是{work.author}。{story}它在{work.contest}里{work.honour}，作品链接在简介里。"


CHANNELS: Final[Mapping[str, Channel]] = MappingProxyType(
    {
        "wechat_official": Channel("微信公众号", 20_000, _headed),
        "wechat_video": Channel("微信视频号", 1000, _tagged),
        "wechat_group": Channel("微信社群", 300, _chat),
        "wecom": Channel("企业微信", 300, _chat),
        "mini_program": Channel("微信小程序", 300, _push),
        "h5": Channel("官网 H5", 20_000, _headed),
        "app": Channel("烘焙课堂 App", 300, _push),
        "douyin": Channel("抖音", 1000, _tagged),
        "kuaishou": Channel("快手", 500, _tagged),
        "xiaohongshu": Channel("小红书", 1000, _note),
        "bilibili": Channel("哔哩哔哩", 1000, _tagged),
        "weibo": Channel("微博", 280, _micro),
        "zhihu": Channel("知乎", 20_000, _answer),
        "toutiao": Channel("今日头条", 2000, _headed),
        "xiachufang": Channel("下厨房", 500, _recipe),
        "ximalaya": Channel("喜马拉雅", 1000, _spoken),
    }
)
"""By the codes that touches know them by."""


def text_for(code: str, work: Work, link: str) -> str:
    """What to post in a channel; the story gives way where there is not room for all of it, the link never."""
    channel = CHANNELS[code]
    work = replace(work, title=cut(work.title, LONGEST_NAME), contest=cut(work.contest, LONGEST_NAME))
    room = channel.length - len(channel.write(work, "", link))
    return channel.write(work, cut(work.story, max(0, room)), link)


def cut(text: str, length: int) -> str:
    """The text, or as much of it as fits with an ellipsis."""
    if len(text) <= length:
        return text
    return text[: length - 1] + "…" if length else ""
