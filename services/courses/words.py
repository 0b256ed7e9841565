"""Words: text cut into what people look for, by jieba's dictionary and by pairs of Chinese characters."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
_WORD: Final = re.compile(r"[^\W_]+")
LONGEST_WORD: Final = 40
MAX_RANKED: Final = 3000
"""Of one course; PostgreSQL takes a megabyte of them."""
MAX_WORDS: Final = 10

# What bakers say and no general dictionary knows.
_OF_BAKERS: Final = """
戚风 海绵蛋糕 磅蛋糕 可颂 欧包 贝果 佛卡夏 恰巴塔 布里欧修 司康 泡芙 马卡龙 费南雪 玛德琳 可露丽 达克瓦兹 慕斯 巴斯克 提拉米苏
班戟 雪媚娘 麻薯 蛋黄酥 凤梨酥 鲜肉月饼 青团 绿豆糕 桂花糕 蛋挞 瑞士卷 蛋糕卷 毛巾卷 千层 舒芙蕾 吐司 酵种 老面 中种 汤种 波兰种
酵母 低粉 高粉 全麦 黑麦 淡奶油 奶油奶酪 马斯卡彭 吉利丁 转化糖 糖霜 翻糖 裱花 抹面 打发 蛋白霜 分蛋 脱模 出膜 手套膜 揉面 醒发
发酵 整形 割包 裹油 开酥 折叠 烤箱 风炉 炉温 回缩 消泡 手冲 拿铁 奶盖 冷萃
"""
# Asked together with what is meant; they would only keep it from being found.
_EMPTY: Final = frozenset(
    "的 了 吗 呢 吧 啊 是 在 和 与 及 或 从 到 我 你 想 要 学 做 教 怎么 怎样 如何 怎么样 怎么办 怎么做 什么 为什么 请问".split()  # noqa: SIM905
)

_loading = Lock()
_loaded: list[Any] = []


class Lexemes(NamedTuple):
    """The words of a course as PostgreSQL reads a tsvector, and its characters and pairs of them with spaces between."""

    words: str
    pieces: str


def fold(text: str) -> str:
    """Text as it is compared: width, case and composition do not matter (NFKC, Unicode Annex 15)."""
    return unicodedata.normalize("NFKC", text).casefold()


def is_loaded() -> bool:
    """Whether the dictionary is in memory; until then whoever cuts text waits for it."""
    return bool(_loaded)


def _dictionary() -> Any:
    with _loading:
        if not _loaded:
            # Half a second, for those who use it.
            import jieba  # noqa: PLC0415

            tokenizer = jieba.Tokenizer()
            # Not by its own `initialize`, which takes twice the time and 90 MB for words that nobody writes, and reads
            # and leaves a file that everybody on this machine may write.
            with tokenizer.get_dict_file() as file:
                tokenizer.FREQ, tokenizer.total = _common_words(file.read().decode())
            tokenizer.initialized = True
            for word in _OF_BAKERS.split():
                tokenizer.add_word(word)
            _loaded.append(tokenizer)
    return _loaded[0]


def _common_words(dictionary: str) -> tuple[dict[str, int], int]:
    """How often words are written, with their beginnings as jieba wants them, and the sum; of those written ten times."""
    counts: dict[str, int] = {}
    total = 0
    for word, written in re.findall(r"^(\S+) (\d{2,}) ", dictionary, re.MULTILINE):
        counts[word] = count = int(written)
        total += count
        for end in range(1, len(word)):
            counts.setdefault(word[:end], 0)
    return counts, total


def needs_dictionary(asked: str) -> bool:
    """Whether what is asked must be cut; one or two characters are a word as they are."""
    return any(len(run) > 2 for run in HAN.findall(fold(asked)))  # noqa: PLR2004 - characters


def asked_words(asked: str) -> list[str]:
    """What must all be found, folded: each word as it is, of Chinese each word that the dictionary sees in it."""
    found = dict.fromkeys(part for word in fold(asked).split()[:MAX_WORDS] for part in _parts(word))
    kept = [word for word in found if word not in _EMPTY]
    return (kept or list(found))[: 2 * MAX_WORDS]


def _parts(word: str) -> list[str]:
    """The words in a word without spaces: Chinese, cut, and what stands between, unless it is only signs."""
    parts = [part for run in HAN.findall(word) for part in _cut(run)]
    if not parts:
        return [word]
    return parts + [part for part in HAN.split(word) if _WORD.search(part)]


def _cut(run: str) -> list[str]:
    """The words in a run of Chinese characters; a single one belongs to the word before it."""
    parts: list[str] = []
    begun = False
    for part in _dictionary().cut(run, HMM=False) if needs_dictionary(run) else [run]:
        if part in _EMPTY:
            begun = False
        elif begun and len(part) == 1:
            parts[-1] += part
        else:
            parts.append(part)
            begun = True
    return parts or [run]


def pieces(run: str) -> list[str]:
    """What a run of Chinese characters is found by: its pairs, or itself."""
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def lexemes(fields: Sequence[Iterable[str]]) -> Lexemes:
    """What a course is ranked and found by; of its fields the first weighs most, and the last is for finding only."""
    dictionary = _dictionary()
    places: dict[str, list[str]] = {}
    for number, texts in enumerate(fields[:-1]):
        weight = f"{number + 1}{'ABCD'[number]}"
        for text in texts:
            for part in _words_of(dictionary, fold(text)):
                held = places.get(part)
                if held is None and len(places) < MAX_RANKED:
                    places[part] = [weight]
                elif held is not None and weight not in held:
                    held.append(weight)
    found: dict[str, None] = {}
    for run in HAN.findall(fold("\n".join(text for texts in fields for text in texts))):
        found |= dict.fromkeys((*run, *pieces(run)))
    ranked = " ".join(f"'{part}':{','.join(held)}" for part, held in places.items())
    return Lexemes(ranked, " ".join(found))


def _words_of(dictionary: Any, folded: str) -> Iterator[str]:
    for word in dictionary.cut_for_search(folded, HMM=False):
        for part in _WORD.findall(word):
            yield part[:LONGEST_WORD]


def tsquery(parts: Iterable[str], operator: str) -> str:
    """These lexemes as PostgreSQL reads a tsquery."""
    return operator.join(f"'{part}'" for part in dict.fromkeys(parts))
