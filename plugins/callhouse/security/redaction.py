"""Free text without phone numbers, cards, ids, names and mail addresses: `<PHONE>`, `<CARD>` …

Numbers are found in every way of writing digits (13800138000, 138 0013 8000, １３８…, 一三八…, "one
three eight"), and told apart by Presidio's recognisers with their checksums. Names are found by the
words around them alone, so that not every name is.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # both take long to import, and the command line needs neither
    import polars as pl
    from presidio_analyzer import EntityRecognizer

    from callhouse.sources.contract import Field

PHONE, CARD, ID, NAME, EMAIL = "<PHONE>", "<CARD>", "<ID>", "<NAME>", "<EMAIL>"

# ------------------------------------------------------------------------------ digits
# Takes the place of what has no width (joiners, accents) and of the rest of a word that is a digit:
# texts keep their length, and every place in them is a place in the original.
FILLER = "\0"
HAN_DIGITS = {
    **dict(zip("零一二三四五六七八九", "0123456789", strict=True)),
    **dict(zip("〇壹贰叁肆伍陆柒捌玖", "0123456789", strict=True)),
    **dict(zip("洞幺两貳參陸拐勾", "01223679", strict=True)),
}
# Words as well, so that they may stand beside a number: "…零零零一共", "两138…".
HAN_WORDS = "一两"
DIGIT_WORDS = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "one": "1", "two": "2", "three": "3",
    "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
REPEATS = {"double": 2, "triple": 3}
WORD = re.compile(
    rf"(?<![A-Za-z])(?:(?P<repeat>{'|'.join(REPEATS)})[ -]+)?(?P<digit>{'|'.join(DIGIT_WORDS)})"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
# What may stand between two digits of one number, up to three of them and any without width.
BETWEEN = r"\0*(?:[\s\-‐-―−.·•・‧。/\\()（）\[\]【】_,，、;；:：|*~'\"“”]\0*){0,3}"
RUN = re.compile(rf"\+?\0*[0-9](?:{BETWEEN}[0-9])*(?:{BETWEEN}[Xx](?![A-Za-z]))?")
# They part numbers more often than digits of one: no card and no id is put together across them.
LIST = re.compile(r"[,，、;；:：|。]")
SHORTEST, LONGEST = 7, 19
# The commonest text of digits that programs write: not worth a look.
MOMENT = re.compile(
    r"(?:19|20)\d\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?"
    r"(?:Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
DATE = re.compile(r"(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])(?!\d)")

# ------------------------------------------------------------------------------ words
CUE = r"[^0-9A-Za-z<。！？!?\n]{0,8}"
SAID = r"(?: number| no\.?| is)*"
CUED_PHONE = (
    rf"(?:电话|手机|致电|回电|回拨|(?<![a-z])(?:tel|phone|mobile)[a-z]*{SAID}){CUE}"
    rf"(?!{DATE.pattern})(\+?[0-9](?:{BETWEEN}[0-9]){{6,}})"
)
CUED_CARD = (
    rf"(?:卡号|银行卡|信用卡|账号|帐号|(?:card|account){SAID}){CUE}([0-9](?:{BETWEEN}[0-9]){{11,}})"
)
CUED_ID = (
    rf"(?:身份证|护照|(?<![a-z])(?:id card|id number|passport|ssn|social security){SAID}){CUE}"
    rf"((?<![A-Za-z0-9])[A-Za-z]{{0,2}}[0-9](?:{BETWEEN}[0-9]){{5,}}(?:{BETWEEN}X)?)"
)
CUED_ACCOUNT = (
    r"(?:微信|QQ|(?<![a-z])wechat(?: id)?)[号:：是为\s]{0,4}(?: is )?"
    r"((?<![A-Za-z0-9])[A-Za-z0-9][A-Za-z0-9_-]{4,19})"
)
CUES = tuple(
    (label, re.compile(pattern, re.IGNORECASE))
    for label, pattern in (
        (PHONE, CUED_PHONE), (CARD, CUED_CARD), (ID, CUED_ID), (ID, CUED_ACCOUNT),
    )
)  # fmt: skip
SPELT_MAIL = (
    r"([A-Za-z0-9._%+\-]{2,} ?(?: at |\(at\)|艾特) ?[A-Za-z0-9\-]+ ?(?: dot |点|\.) ?"
    r"(?:com|cn|net|org)(?![A-Za-z]))"
)
MAIL = (
    re.compile(r"([A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+)"),
    re.compile(SPELT_MAIL),
)
SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范"
    "彭郎鲁韦昌马苗凤花方俞任袁柳酆鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于时傅皮卞齐康伍余元卜"
    "顾孟平黄穆萧尹姚邵湛汪祁毛禹狄米贝明臧计伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄"
    "危江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万支柯昝管卢莫经房裘缪干解应宗丁宣贲邓郁单杭洪包"
    "诸左石崔吉钮龚程嵇邢滑裴陆荣翁荀羊惠甄曲封储靳邴糜松段富巫乌焦巴弓牧隗山谷车侯宓蓬全郗班仰秋"
    "仲伊宫宁仇栾暴甘厉戎祖武符刘景詹束龙叶幸司韶黎薄印宿白怀蒲邰鄂索咸籍赖卓蔺屠蒙池乔阴胥苍双闻"
    "莘党翟谭贡劳姬申冉宰郦雍璩桑桂牛寿边扈燕冀浦尚农温庄晏柴瞿阎充慕连茹习艾鱼容向古易慎戈廖庾终"
    "居衡步都耿满弘匡国文寇广禄东欧沃利蔚越隆师巩聂晁勾敖冷辛阚简饶曾关沙丰游肖闫付涂覃佟邸"
)
COMPOUND = (
    "欧阳|上官|司马|诸葛|司徒|东方|皇甫|尉迟|公孙|慕容|令狐|长孙|宇文|司空|夏侯|轩辕|南宫|端木|"
    "独孤|西门|百里|呼延|完颜|闻人"
)
HAN = r"\u3400-\u9fff"
# No given name is made of these, and they often stand before a title.
GIVEN = rf"(?![的是了在我你您他她们这那个位不吗呢吧和与跟给对叫请问找有])[{HAN}]"
FULL = rf"(?:{COMPOUND}|[{SURNAMES}])"
STRANGER = r"not|on|in|the|a|an|so|very|still|spelled|wrong|missing|listed|never|just|calling"
ENGLISH = r"[A-Z][A-Za-z'’\-]+(?:\s+[A-Z][A-Za-z'’\-]+){0,2}"
SAID_NAME = (
    rf"(?:我叫|名叫|名字叫|我的名字是|本人叫?|姓名|联系人|收件人|机主|户主)(?:[是叫为]|[:：\s])*"
    rf"({FULL}(?:{GIVEN}){{1,2}})"
)
# In lower case as well, up to the first word that is no name.
ENGLISH_NAME = (
    rf"(?i:(?<![a-z])(?:my|full|first|last|customer) name(?: is|['’]s|\s*[:：])\s+"
    rf"(?!(?:{STRANGER})\b)([a-z][a-z'’\-]+(?:\s+(?!(?:and|i|calling|from|my|with|is|but|please|"
    rf"you|the|{STRANGER})\b)[a-z'’\-]+){{0,2}}))"
)
NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"({FULL}(?:{GIVEN}){{0,2}})(?=先生|女士|小姐|太太|同志|阿姨|师傅|大爷|老师)",
        SAID_NAME,
        rf"(?:我是|这里是)({FULL}(?:{GIVEN}){{1,2}})(?=$|[\s,，.。、!！?？;；]|[我想要打电手])",
        rf"([{HAN}]{{2,8}}[·•][{HAN}]{{2,8}})",
        rf"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?\s+({ENGLISH})",
        rf"(?<![A-Za-z])(?:[Tt]his is|I am|I['’]m)\s+(?!(?i:{STRANGER})\b)({ENGLISH})",
        ENGLISH_NAME,
    )
)
IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}")

# What no text is without in which anything above is found. `re` is given folded texts; polars is
# not, counts marks and joiners as letters, and is slow where a word boundary is asked for.
_UNIT = rf"(?:[\d{''.join(HAN_DIGITS)}]|{'|'.join((*DIGIT_WORDS, *REPEATS))})"
_SUSPICIOUS = (
    r"(?is)[@＠·•]|艾特|\(at\)|[^a-z]at[^a-z].{1,80}(?:com|cn|net|org)|"
    r"先生|女士|小姐|太太|同志|阿姨|师傅|大爷|老师|我叫|我是|这里是|名叫|名字|姓名|本人|联系人|收件人|机主|户主|"
    r"微信|[QＱｑ]{2}|wechat|(?:^|[^a-z])(?:mr|mrs|ms|miss|dr|prof)[.\s]|"
    r"(?:my|full|first|last|customer) name|"
    r"this is\s|(?:^|[^a-z])i(?: a|['’])m\s|"
    rf"{_UNIT}(?:[\W_]*{_UNIT}){{5,}}"
)
SUSPICIOUS = _SUSPICIOUS.replace(r"[\d", r"[\p{Nd}\p{No}").replace(
    r"[\W_]", r"[\W_\p{M}\x{200c}\x{200d}]"
)
_CANDIDATE = re.compile(_SUSPICIOUS)
REMEMBERED = 4096


class _Folding(dict[int, str]):
    """Characters as the patterns know them, one for one; worked out when first seen."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = character
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):
            folded = FILLER
        elif (digit := unicodedata.digit(character, None)) is not None:
            folded = str(digit)
        elif code > 127:
            plain = unicodedata.normalize("NFKC", character)
            if len(plain) == 1 and (plain.isalnum() or plain in "@.+-_"):
                folded = plain
        self[code] = folded
        return folded


_FOLDING = _Folding()
_HAN = str.maketrans(HAN_DIGITS)


def _digit_word(found: re.Match[str]) -> str:
    digit = DIGIT_WORDS[found["digit"].lower()]
    repeated = digit * REPEATS.get((found["repeat"] or "").lower(), 1)
    return repeated.ljust(len(found[0]), FILLER)


@dataclass(frozen=True)
class _Number:
    """Digits that may be one number, and where they are."""

    digits: str
    start: int
    end: int
    lengths: tuple[int, ...]  # of the groups in which they stand
    has_list: bool  # a comma or the like is among them
    is_marked: bool  # "-", "." or a bracket is among them
    is_international: bool


def _numbers(folded: str, spoken: str) -> Iterator[list[_Number]]:
    """Per run of digits every number that it may hold, by where it begins and the longest first.

    A number begins and ends where a group of digits does, or their script changes.
    """
    for run in RUN.finditer(spoken):
        places = [i for i in range(run.start(), run.end()) if spoken[i].isalnum()]
        if len(places) < SHORTEST:
            continue
        cuts = [0]
        for index in range(1, len(places)):
            before, place = places[index - 1], places[index]
            is_group = place > before + 1
            is_script = folded[before].isdigit() != folded[place].isdigit()
            is_word = (index == 1 and folded[before] in HAN_WORDS) or (
                index == len(places) - 1 and folded[place] in HAN_WORDS
            )
            if is_group or is_script or is_word or not spoken[place].isdigit():
                cuts.append(index)
        cuts.append(len(places))
        found = []
        for first, low in enumerate(cuts[:-1]):
            for last in range(len(cuts) - 1, first, -1):
                high = cuts[last]
                if not SHORTEST <= high - low <= LONGEST:
                    continue
                start, end = places[low], places[high - 1] + 1
                end += len(spoken[end:]) - len(spoken[end:].lstrip(FILLER))
                between = spoken[start:end]
                found.append(
                    _Number(
                        "".join(spoken[place] for place in places[low:high]).upper(),
                        start,
                        end,
                        tuple(b - a for a, b in zip(cuts[first:last], cuts[first + 1 : last + 1],
                                                    strict=True)),
                        LIST.search(between) is not None,
                        any(mark in between for mark in "-.()"),
                        low == 0 and run[0].startswith("+"),
                    )
                )  # fmt: skip
        yield found


# ------------------------------------------------------------------------------ recognisers
class Recognisers:
    """Presidio's recognisers for one country's numbers, asked one by one: no engine, no model."""

    def __init__(self, country: str) -> None:
        from presidio_analyzer import Pattern, PatternRecognizer
        from presidio_analyzer.predefined_recognizers import (
            CreditCardRecognizer,
            IbanRecognizer,
            PhoneRecognizer,
        )

        class ResidentIdRecognizer(PatternRecognizer):
            """Ids of residents of China (GB 11643): birth date and check digit must be right."""

            def validate_result(self, pattern_text: str) -> bool:
                return is_resident_id(pattern_text)

        # It would log texts that it cannot check.
        logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)
        self.ids = ResidentIdRecognizer(
            ID, patterns=[Pattern("resident id", r"\A[1-9]\d{16}[\dX]\Z", 0.5)]
        )
        # UnionPay's have up to 19 digits, which Presidio's own pattern does not take.
        self.cards = CreditCardRecognizer(
            patterns=[Pattern("card", r"\A(?:[3-6]\d|2[2-7])\d{11,17}\Z", 0.5)]
        )
        self.ibans = IbanRecognizer()
        # Blocks of mobile numbers are given out faster than the library learns of them.
        self.mobiles = PatternRecognizer(
            PHONE, patterns=[Pattern("mobile", r"\A(?:(?:00)?86)?1[3-9]\d{9}\Z", 0.5)]
        )
        self.phones = PhoneRecognizer(supported_regions=(country,), leniency=1)
        self.american = PhoneRecognizer(supported_regions=("US",), leniency=1)


def _label(number: _Number, country: str) -> str | None:
    """What the digits are, None where they are nothing that is known."""
    digits, size = number.digits, len(number.digits)
    is_whole = not number.has_list or max(number.lengths) == 1
    if size == 18 and is_whole and _takes(_recognisers(country).ids, digits):
        return ID
    if not digits.isdigit():
        return None
    may_be_card = size >= 13 and is_whole and digits[0] in "23456"
    if may_be_card and _takes(_recognisers(country).cards, digits):
        return CARD
    return PHONE if size <= 17 and _is_phone(number, country) else None


def _is_phone(number: _Number, country: str) -> bool:
    digits, size = number.digits, len(number.digits)
    if number.is_international or digits.startswith("00"):
        if country == "CN" and _takes(_recognisers(country).mobiles, digits):
            return True
        return _takes(_recognisers(country).phones, "+" + digits.removeprefix("00"))
    may_be = True
    if country == "CN":
        if size >= 11 and digits[-11] == "1" and _takes(_recognisers(country).mobiles, digits):
            return True
        # Without the trunk's 0 a number of an office cannot be told from any other.
        # 400 and 800 are numbers of companies, the hotlines among them: nobody's.
        may_be = 10 <= size <= 12 and digits[0] == "0"
    if may_be and _takes(_recognisers(country).phones, digits):
        return True
    is_american = number.lengths == (3, 3, 4) and number.is_marked
    return is_american and _takes(_recognisers(country).american, digits)


def _takes(recogniser: EntityRecognizer, text: str) -> bool:
    """Whether the recogniser takes the text as a whole."""
    return (0, len(text)) in _places(recogniser, text)


def _places(recogniser: EntityRecognizer, text: str) -> list[tuple[int, int]]:
    """Where it finds something. Patterns need no tokens, so no language model made any."""
    found = recogniser.analyze(text, recogniser.supported_entities, None)  # type: ignore[arg-type]
    return [(item.start, item.end) for item in found]


def is_resident_id(text: str) -> bool:
    """Whether the 18 characters are an id of a resident of China: ISO 7064 MOD 11-2, and a day."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(weight * int(digit) for weight, digit in zip(weights, text[:17], strict=True))
    try:
        born = datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return 1850 <= born.year <= 2100 and "10X98765432"[total % 11] == text[17].upper()


@lru_cache(maxsize=8)
def _recognisers(country: str) -> Recognisers:
    return Recognisers(country)


# ------------------------------------------------------------------------------ texts
def redacted(text: str, country: str = "CN") -> str:
    """`text` with labels in the place of personal data; numbers without prefix are `country`'s."""
    if MOMENT.fullmatch(text):
        return text
    folded = text.translate(_FOLDING)
    if not _CANDIDATE.search(folded):
        return text
    spans: list[tuple[int, int, str]] = []
    for start, end, label in _found(folded, country):
        if start < end and all(end <= low or high <= start for low, high, _ in spans):
            spans.append((start, end, label))
    pieces, done = [], 0
    for start, end, label in sorted(spans):
        pieces += [text[done:start], label]
        done = end
    return "".join([*pieces, text[done:]])


def _found(folded: str, country: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, label), the surest first."""
    spoken = WORD.sub(_digit_word, folded.translate(_HAN))
    for pattern in MAIL:
        yield from ((*found.span(1), EMAIL) for found in pattern.finditer(folded))
    for numbers in _numbers(folded, spoken):
        done = 0
        for number in numbers:
            if number.start >= done and (label := _label(number, country)):
                yield _beginning(spoken, number), number.end, label
                done = number.end
    if IBAN.search(folded):
        yield from ((*place, CARD) for place in _places(_recognisers(country).ibans, folded))
    for label, pattern in CUES:
        yield from ((*found.span(1), label) for found in pattern.finditer(spoken))
    for pattern in NAMES:
        yield from ((*found.span(1), NAME) for found in pattern.finditer(folded))


def _beginning(spoken: str, number: _Number) -> int:
    """Where a number begins with its plus, and with a bracket that is closed in it."""
    start = number.start
    while number.is_international and start and spoken[start - 1] in f"+{FILLER}":
        start -= 1
    has_bracket = ")" in spoken[start : number.end] and spoken[:start].endswith("(")
    return start - 1 if has_bracket else start


def redacted_json(text: str, redact: Callable[[str], str] = redacted) -> str:
    """`redact` of every text, key and number in a JSON document; what is no JSON is one text."""
    try:
        content = json.loads(text)
    except ValueError:
        return redact(text)
    return json.dumps(_walked(content, redact), ensure_ascii=False, sort_keys=True)


def _walked(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {redact(key): _walked(item, redact) for key, item in value.items()}
    if isinstance(value, list):
        return [_walked(item, redact) for item in value]
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = repr(value)
        return value if (left := redact(shown)) == shown else left
    return value


# ------------------------------------------------------------------------------ rows
def redact_rows(rows: pl.DataFrame, free: Iterable[Field], country: str | None) -> pl.DataFrame:
    """`rows` with the fields `free` redacted. Each text is looked at once, and few are at all.

    A boolean column `is_free` (`Batch`) says of which rows they are free text; without it, of all.
    """
    import polars as pl

    for item in free:
        if item.name not in rows.columns:
            continue
        column = rows.get_column(item.name)
        if column.dtype != pl.String or column.null_count() == column.len():
            continue
        looked_at = column.str.contains(SUSPICIOUS)
        if "is_free" in rows.columns:
            looked_at &= rows.get_column("is_free")
        looked_at = looked_at.fill_null(value=False)
        if not looked_at.any():
            continue
        # Documents share what is in them.
        redact = lru_cache(maxsize=REMEMBERED)(partial(redacted, country=country or "CN"))
        whole = partial(redacted_json, redact=redact) if item.kind == "json" else redact
        texts: Sequence[str] = column.filter(looked_at).unique().to_list()
        changed = {text: left for text in texts if (left := whole(text)) != text}
        if changed:
            replaced = column.replace(list(changed), list(changed.values()))
            rows = rows.with_columns(replaced.zip_with(looked_at, column))
    return rows
