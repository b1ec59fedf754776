"""Tokens of a text, estimated from its characters alone.

The rates were fitted to the encodings `o200k_base` and `cl100k_base`, and are above what both count for prose, code,
JSON, base64 and other scripts. Tokenizers of other vendors differ; what a run's own answers report corrects them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import ceil

from mandate.activities.context import tokenizer

Kind = str
"""`words`, `marks`, `dense` or `scripts`: what one tokenizer counts alike, and what it is corrected for apart."""

KINDS: tuple[Kind, ...] = ("words", "marks", "dense", "scripts")

LONG_TEXT = 4 * 1024 * 1024
"""Characters from which on a text is not read: it has as many tokens as bytes at most."""
REPEATED = 16
"""Length from which on a word of one or two letters is no word of any language."""

_BIGRAMS = (
    "intherreseonteheoresstenleatdeancoiteltialisarntmendlietngedtoilasiorinetrmafiroratanonsvehapeurecouacsilfcepaam"
    "naeactchfoodifllexutgecarsdiefomuntukeicprlohirnotncssrtpouslaemadultsmpofueolbeimopptckttbuaplstyplhoaimosowia"
    "bvairsuooibepigrybleeniidypdoosluieclocagrrspoweydaupltwhldppbafahtxtwagirushumtpfrrgiapiquipscsadusymibycruiiv"
    "rmnuyslygraurcboevyoobrlbieqovcidstcwoavubpufupyvinfffakpsfeogghrd"
)
_COMMON_BIGRAMS = frozenset(_BIGRAMS[place : place + 2] for place in range(0, len(_BIGRAMS) - 1, 2))

_COMMON_HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现"
    "当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重"
    "并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入"
    "几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基"
    "眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运用户请查询"
    "订单号客款退款金额批准录操作系统处理"
)
_COMMON_HANGUL = frozenset(
    "이다는을의에가를고하은지로한기도사리서어자아나해시인대그라정수일보부만전으성주구제상니요습합있것게"
)

_RUN = r"(?=[A-Za-z+/=_-]{0,19}[0-9])[A-Za-z0-9+/=_-]{20,}|[A-Za-z0-9+/]{64,}"
# A space alone is part of the word or the mark that follows, but of no number.
_PIECE = re.compile(
    rf"{_RUN}|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|\n\s*| (?=[0-9])|[ \t\r\f\v]{{2,}}|[\t\r\f\v]"
    r"|[!-/:-@\[-`{-~]+|[^\x00-\x7f]+|[\x00-\x1f\x7f]"
)
_IS_RUN = re.compile(_RUN)
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^A-Za-z0-9]+")
_ACCENTED = re.compile(r"[\u00c0-\u024f]")
_PLAIN_MARKS = frozenset("\"'{}[](),:;.=<>/_-")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by kind of text."""

    words: float = 0.0
    marks: float = 0.0
    dense: float = 0.0
    scripts: float = 0.0
    exact: float = 0.0
    """All of them, as a tokenizer counts, where one is used."""

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.words + other.words,
            self.marks + other.marks,
            self.dense + other.dense,
            self.scripts + other.scripts,
            self.exact + other.exact,
        )

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.words - other.words,
            self.marks - other.marks,
            self.dense - other.dense,
            self.scripts - other.scripts,
            self.exact - other.exact,
        )

    @property
    def total(self) -> float:
        return self.words + self.marks + self.dense + self.scripts

    def times(self, ratios: Sequence[float]) -> float:
        """Return the sum with each kind corrected by its ratio, in the order of `KINDS`."""
        parts = (self.words, self.marks, self.dense, self.scripts)
        return sum(part * ratio for part, ratio in zip(parts, ratios, strict=True))


def estimate_tokens(text: str) -> int:
    """Return how many tokens a model counts for `text`, at most."""
    return ceil(count(text).total)


def count(text: str) -> Tokens:
    """Return the tokens of `text` by kind."""
    if len(text) > LONG_TEXT:
        most = len(text.encode(errors="replace"))
        return Tokens(dense=most, exact=most)
    found = _count(text)
    return replace(found, exact=exact) if (exact := tokenizer.count_exactly(text)) else found


def _count(text: str) -> Tokens:
    words = marks = dense = scripts = 0.0
    rates: tuple[float, float] | None = None
    for piece, number in Counter(_PIECE.findall(text)).items():
        if not piece[0].isascii():
            rates = rates or _find_rates(text)
            scripts += number * sum(_measure_other(character, rates) for character in piece)
            continue
        kind, tokens = _measure_piece(piece)
        if kind == "words":
            words += number * tokens
        elif kind == "marks":
            marks += number * tokens
        else:
            dense += number * tokens
    # Words of other languages that write with Latin letters are in more pieces than those of English.
    words *= 1.3 if scripts and len(_ACCENTED.findall(text)) > len(text) / 200 else 1.0
    return Tokens(words * 1.03, marks * 1.03, dense * 1.06, scripts * 1.04)


@lru_cache(maxsize=1 << 15)
def _measure_piece(piece: str) -> tuple[Kind, float]:
    """Return the kind and the tokens of a piece that begins with a character of ASCII."""
    first = piece[0]
    if len(piece) >= 20 and _IS_RUN.fullmatch(piece):
        is_dense, tokens = _measure_run(piece)
        return ("dense" if is_dense else "words"), tokens
    if first.isalpha():
        looks_known, tokens = _measure_word(piece)
        return ("words" if looks_known else "dense"), tokens
    if first.isdigit():
        return "marks", float(ceil(len(piece) / 3))
    if first == "\n":
        return "marks", 1.1 + 0.7 * (piece[-1] != "\n") + len(piece) / 50 + 1.2 * ("\t" in piece and " " in piece)
    if first == " " and len(piece) == 1:
        return "marks", 1.0
    if first in " \t\r\f\v":
        return "marks", 1.3 + len(piece) / 60 + (len(set(piece)) > 1)
    if first < " " or first == "\x7f":
        return "marks", 1.0
    return "marks", _measure_marks(piece)


@lru_cache(maxsize=1 << 15)
def _measure_word(word: str) -> tuple[bool, float]:
    """Return whether a word looks like one that tokenizers know, and its tokens."""
    length, low = len(word), word.lower()
    if length == 1:
        return True, 1.0
    if length >= REPEATED and (letters := len(set(low))) <= 2:
        return False, 0.5 * letters * length + 1.0
    unusual = sum(first + second not in _COMMON_BIGRAMS for first, second in pairwise(low))
    if length > 4 and unusual >= 0.3 * (length - 1):
        return unusual < 0.45 * (length - 1), 0.49 * length + 0.7
    if word.isupper():
        return True, 1.0 + 0.15 * (length - 1) + 0.25 * unusual
    tokens = 1.05 + 0.09 * max(0, length - 7) + 0.2 * max(0, length - 12)
    return True, tokens + unusual * (0.4 if length <= 4 else 0.3)


@lru_cache(maxsize=1 << 13)
def _measure_marks(piece: str) -> float:
    length = len(piece)
    if length == 1:
        return 1.0
    if len(set(piece)) == 1:
        return 1.0 + length / 8
    if all(mark in _PLAIN_MARKS for mark in piece):
        return 0.85 + 0.2 * length if length <= 4 else 0.45 + 0.4 * length
    return 0.3 + 0.72 * length


def _measure_run(piece: str) -> tuple[bool, float]:
    """Return whether a long run without spaces is encoded data, and its tokens; else it is an identifier or a path."""
    if len(set(piece.lower())) <= 2:
        return True, _measure_word(piece)[1] if piece.isalpha() else float(len(piece))
    parts = [part for part in _PART.findall(piece) if part]
    tokens = sum(_measure_part(part) for part in parts)
    is_dense = len(parts) > 0.22 * len(piece)
    return is_dense, max(tokens, 0.5 * len(piece)) * 1.06 if is_dense else tokens


def _measure_part(part: str) -> float:
    if part[0].isdigit():
        return ceil(len(part) / 3)
    return _measure_word(part)[1] if part[0].isalpha() else _measure_marks(part)


def _find_rates(text: str) -> tuple[float, float]:
    """Return the tokens of a less common Chinese character and of a Korean syllable, by how natural the text looks."""
    sample = text[:4000] if len(text) <= 8000 else text[:4000] + text[-4000:]
    han = [character for character in sample if "\u4e00" <= character <= "\u9fff"]
    kana = sum("\u3040" <= character <= "\u30ff" for character in sample)
    hangul = [character for character in sample if "\uac00" <= character <= "\ud7a3"]
    is_natural = sum(map(_COMMON_HAN.__contains__, han)) >= 0.2 * len(han) or kana >= 0.3 * len(han)
    is_korean = sum(map(_COMMON_HANGUL.__contains__, hangul)) >= 0.15 * len(hangul)
    return (1.2 if is_natural else 2.5), (1.35 if is_korean else 2.65)


def _measure_other(character: str, rates: tuple[float, float]) -> float:
    code = ord(character)
    for end, tokens in _RATES:
        if code < end:
            return 1.4 if code in _COMMON_SIGNS else tokens
    if 0x4E00 <= code <= 0x9FFF:
        return 0.95 if character in _COMMON_HAN else rates[0]
    if 0xAC00 <= code <= 0xD7A3:
        return 1.0 if character in _COMMON_HANGUL else rates[1]
    if 0xFF00 <= code < 0xFFF0:
        return 1.8
    # Nothing has more tokens than bytes, beside a space before it.
    return 3.9 if code < 0x10000 else 4.85


_RATES = (
    (0x180, 1.6),
    (0x370, 2.0),
    (0x400, 1.6),
    (0x460, 1.12),
    (0x590, 2.0),
    (0x600, 1.5),
    (0x670, 1.3),
    (0x800, 2.0),
    (0x900, 3.0),
    (0xE00, 2.1),
    (0xE80, 1.6),
    (0x3000, 3.9),
    (0x3040, 1.6),
    (0x3100, 1.45),
)
_COMMON_SIGNS = frozenset(
    (0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2026, 0x2192, 0x2190, 0x2264, 0x2265, 0x20AC, 0x2122)
)
