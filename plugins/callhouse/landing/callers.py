"""Callers: keyed tokens instead of numbers, region and carrier from the number's prefix.

Nothing here writes a number in clear; what `Callers.found` collects is encrypted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import phonenumbers
import polars as pl
import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from phonenumbers import carrier, geocoder

from callhouse.settings import Settings
from callhouse.sources import contract
from callhouse.sources.contract import CallerRule

ERASED = 0  # key version of a pseudonym
SECRETS = {"token": "caller_key", "encryption": "caller_encryption_key"}
NONCE_BYTES = 12
NONCES_AT_ONCE = 4096
# Callers remembered within one file; beyond it they are worked out again.
REMEMBERED = 500_000
# Lines of one exchange or mobile block: prefixes that decide about region and carrier are longer.
LINE_DIGITS = 4
PUNCTUATION = re.compile(r"[\s()\-./]+")
MAINLAND_MOBILE = re.compile(r"\+86(1[3-9]\d)\d{8}")
# Digits that a mask hides at least, and those that it shows at most at the end.
STARRED, SHOWN = 4, 4

Found = tuple[bytes, str, bytes, str]
"""A caller for pii.callers: token, kind, encrypted value, mask."""

KNOWN = {
    "caller": pl.String, "caller_token": pl.Binary, "caller_key_version": pl.Int16,
    "found_region": pl.String, "found_carrier": pl.String, "is_odd": pl.Boolean,
}  # fmt: skip

# How the geocoder's Chinese descriptions begin → ISO 3166-2.
PROVINCES = {
    "北京": "CN-BJ", "天津": "CN-TJ", "河北": "CN-HE", "山西": "CN-SX", "内蒙古": "CN-NM",
    "辽宁": "CN-LN", "吉林": "CN-JL", "黑龙江": "CN-HL", "上海": "CN-SH", "江苏": "CN-JS",
    "浙江": "CN-ZJ", "安徽": "CN-AH", "福建": "CN-FJ", "江西": "CN-JX", "山东": "CN-SD",
    "河南": "CN-HA", "湖北": "CN-HB", "湖南": "CN-HN", "广东": "CN-GD", "广西": "CN-GX",
    "海南": "CN-HI", "重庆": "CN-CQ", "四川": "CN-SC", "贵州": "CN-GZ", "云南": "CN-YN",
    "西藏": "CN-XZ", "陕西": "CN-SN", "甘肃": "CN-GS", "青海": "CN-QH", "宁夏": "CN-NX",
    "新疆": "CN-XJ",
}  # fmt: skip


@dataclass(frozen=True)
class Keys:
    """Versions of the keys that are in use, and the pseudonyms of erased callers."""

    token: int = 1
    encryption: int = 1
    erased: frozenset[bytes] = frozenset()


def secret_name(purpose: str, version: int) -> str:
    """Name of the secret that is the key of that version; `purpose` is one of SECRETS."""
    return SECRETS[purpose] + (f"_{version}" if version > 1 else "")


def hold_keys(connection: psycopg.Connection) -> Keys:
    """The keys in use, which stay so until the transaction ends: rotation waits for it."""
    connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('caller keys', 0))")
    versions = connection.execute(
        "select purpose, max(version) from pii.key_versions group by purpose"
    ).fetchall()
    erased = connection.execute("select pseudonym from pii.erased_callers").fetchall()
    return Keys(**dict(versions), erased=frozenset(found.bytes for (found,) in erased))


def key_of(settings: Settings, purpose: str, version: int) -> bytes:
    """The key of that version. Only the first ones are made where they are missing."""
    name = secret_name(purpose, version)
    return settings.secret(name, is_made=version == 1).encode()


class Erasure:
    """What stands for an erased caller, and for its rows; known to whoever has the key alone."""

    MARK = re.compile(contract.ERASED_CALLER)

    def __init__(self, settings: Settings, *, is_first: bool = False) -> None:
        self._key = settings.secret("caller_erasure_key", is_made=is_first).encode()

    def pseudonym(self, kind: str, value: str, source: str) -> bytes:
        """In the place of the token of a number in E.164 or of an id of a source."""
        return hmac.digest(self._key, f"{_scope(kind, source)}{value}".encode(), "sha256")[:16]

    def row(self, row_hash: bytes) -> bytes:
        """In the place of a row's hash, by which a number could be tried out."""
        return hmac.digest(self._key, b"row:" + row_hash, "sha256")[:16]

    def mark(self, pseudonym: bytes, row_hash: bytes | None, region: str | None) -> str:
        """In the place of the caller in a file: what landing needs to see the same row again."""
        whole = pseudonym.hex() + (self.row(row_hash).hex() if row_hash else "")
        mark = f"erased-{whole}-{region}"
        return mark if region and self.MARK.fullmatch(mark) else f"erased-{whole}"


def _scope(kind: str, source: str) -> str:
    """Numbers are the same in every source, ids belong to theirs."""
    return "phone:" if kind == "phone" else f"id:{source}:"


@dataclass(frozen=True)
class Prefix:
    """What all numbers with one prefix and length share: how to write them in E.164, and where."""

    head: str
    drop: int
    region: str | None
    carrier: str | None
    is_phone: bool
    mask: str  # what is shown of the number before its last `shown` digits
    shown: int


def region_of(number: phonenumbers.PhoneNumber) -> str | None:
    """ISO 3166-2 province in China, ISO 3166-1 country elsewhere, None where unknown."""
    country = phonenumbers.region_code_for_number(number)
    if country == "CN":
        place = geocoder.description_for_number(number, "zh")
        for name, code in PROVINCES.items():
            if place.startswith(name):
                return code
    return country if country and country != "001" else None


def mask_of(number: str, country_code: int | None = None) -> tuple[str, int]:
    """What may be shown of a number in E.164 or bare digits: a text, and how many last digits.

    A mobile number of mainland China is 138****1234, any other one its country code, stars and the
    end. By the number alone: the token is the same in every source, and so must the mask be.
    """
    if mobile := MAINLAND_MOBILE.fullmatch(number):
        return f"{mobile[1]}{'*' * STARRED}", SHOWN
    code = f"+{country_code} " if country_code else ""
    length = len(number.removeprefix("+")) - len(str(country_code or ""))
    shown = max(0, min(SHOWN, length - STARRED))
    return code + "*" * max(STARRED, length - shown), shown


def masks_of_ids(values: pl.Series) -> pl.Series:
    """What may be shown of customers' ids: the last two characters, of short ones nothing."""
    end = pl.when(values.str.len_chars() > STARRED).then(values.str.tail(2)).otherwise(pl.lit(""))
    return pl.select(pl.lit("*" * STARRED) + end).to_series()


def _bare(text: str) -> str | None:
    """A number without the marks that people put into it; None for what is no number."""
    text = PUNCTUATION.sub("", unicodedata.normalize("NFKC", text))
    return text if text.isascii() and text.removeprefix("+").isdigit() else None


class PhoneBook:
    """Normalises numbers; the slow library is asked once per prefix."""

    def __init__(self, country: str) -> None:
        self.country = country
        self._known: dict[tuple[str, int], Prefix] = {}

    def look_up(self, texts: pl.Series) -> pl.DataFrame:
        """Per text as a source wrote it: `number` in E.164 or bare digits, its Prefix, its `mask`.

        A text that is no number has none.
        """
        digits = texts.str.contains(r"^[0-9]+$")
        if not digits.all():
            texts = texts.zip_with(digits, texts.map_elements(_bare, pl.String))
        frame = pl.DataFrame({"text": texts}).with_columns(
            pl.col("text").str.head(-LINE_DIGITS).alias("prefix"),
            pl.col("text").str.len_bytes().alias("length"),
        )
        first = frame.drop_nulls().unique(("prefix", "length"), keep="first")
        known = [
            (prefix, length, *dataclasses.astuple(self._prefix(prefix, length, text)))
            for text, prefix, length in first.iter_rows()
        ]
        schema = {
            "prefix": pl.String, "length": pl.UInt32, "head": pl.String, "drop": pl.Int64,
            "region": pl.String, "carrier": pl.String, "is_phone": pl.Boolean,
            "mask": pl.String, "shown": pl.Int64,
        }  # fmt: skip
        return frame.join(
            pl.DataFrame(known, schema, orient="row"),
            on=("prefix", "length"), how="left", maintain_order="left",
        ).select(
            (pl.col("head") + pl.col("text").str.slice(pl.col("drop"))).alias("number"),
            "region", "carrier", "is_phone",
            (pl.col("mask") + pl.col("text").str.tail(pl.col("shown"))).alias("mask"),
        )  # fmt: skip

    def _prefix(self, prefix: str, length: int, text: str) -> Prefix:
        found = self._known.get((prefix, length))
        if found is None:
            found = self._known[prefix, length] = self._learn(text)
        return found

    def _learn(self, text: str) -> Prefix:
        try:
            number = phonenumbers.parse(text, self.country)
        except phonenumbers.NumberParseException:
            number = None
        if number is None or not phonenumbers.is_possible_number(number):
            return Prefix("", 0, None, None, False, *mask_of(text))
        full = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        same = 0  # how many digits both spellings end with
        while same < min(len(full), len(text)) and full[-1 - same] == text[-1 - same]:
            same += 1
        return Prefix(
            full[: len(full) - same],
            len(text) - same,
            region_of(number),
            carrier.name_for_number(number, "en") or None,
            True,
            *mask_of(full, number.country_code),
        )


def masks(callers: Sequence[tuple[str, str]]) -> list[str]:
    """What may be shown of callers that were kept: pairs of kind and value."""
    numbers = pl.Series([value for kind, value in callers if kind == "phone"], dtype=pl.String)
    of_numbers = iter(PhoneBook("ZZ").look_up(numbers).get_column("mask").to_list())
    of_ids = iter(masks_of_ids(pl.Series([v for k, v in callers if k == "id"], dtype=pl.String)))
    return [next(of_numbers if kind == "phone" else of_ids) for kind, _ in callers]


class Callers:
    """Tokens for one file's callers, and the encrypted values that pii.callers still lacks."""

    def __init__(
        self, settings: Settings, source: str, rule: CallerRule | None, keys: Keys = Keys()
    ) -> None:
        # HMAC-SHA256 with the key's two blocks hashed once: hmac.digest costs three times as much.
        key = key_of(settings, "token", keys.token)
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self.cipher = Cipher(settings, keys.encryption)
        self.erasure = Erasure(settings) if keys.erased else None
        self.erased_rows = 0
        self._marked: dict[str, bytes] = {}  # marks in the file → hash of their row
        self.keys, self.source, self.rule = keys, source, rule
        self._book = PhoneBook(rule.country) if rule and rule.country else None
        self._known = pl.DataFrame(schema=KNOWN)
        self._saved: set[bytes] = set()
        self.found: list[Found] = []

    def replace(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` with token, key version, region and carrier in the place of the raw caller."""
        if self.rule is None:
            return rows.drop("caller").with_columns(
                pl.lit(None, pl.Binary).alias("caller_token"),
                pl.lit(None, pl.Int16).alias("caller_key_version"),
            )
        if self._known.height > REMEMBERED:
            self._known = self._known.clear()
        new = rows.select(pl.col("caller").drop_nulls().unique()).join(
            self._known, on="caller", how="anti"
        )
        if new.height:
            self._known = pl.concat([self._known, self._resolve(new.get_column("caller"))])
        joined = rows.join(self._known, on="caller", how="left", maintain_order="left")
        if self.erasure or self._marked:
            joined = self._as_erased(joined)
        odd = pl.lit("irregular:caller")
        issues = pl.col("data_issues")
        return joined.with_columns(
            pl.coalesce("caller_region_code", "found_region").alias("caller_region_code"),
            pl.coalesce("caller_carrier", "found_carrier").alias("caller_carrier"),
            pl.when("is_odd").then(pl.concat_str(issues, odd, separator=",", ignore_nulls=True))
            .otherwise(issues).alias("data_issues"),
        ).drop("caller", "found_region", "found_carrier", "is_odd")  # fmt: skip

    def _as_erased(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows`, those of erased callers with the hash that they have been kept with."""
        hidden = rows.get_column("caller_key_version").eq(ERASED).fill_null(False)
        if not hidden.any():
            return rows
        hashes = rows.get_column("row_hash").to_list()
        for index in hidden.arg_true():
            caller = rows.item(index, "caller")
            self.erased_rows += 1
            if caller in self._marked:
                hashes[index] = self._marked[caller] or hashes[index]
            elif self.erasure:
                hashes[index] = self.erasure.row(hashes[index])
        return rows.with_columns(pl.Series("row_hash", hashes, pl.Binary))

    def _read_marks(self, texts: pl.Series) -> pl.DataFrame:
        """KNOWN of marks that stand in a file for erased callers."""
        known = []
        for text in texts:
            _, whole, *region = text.split("-", 2)
            self._marked[text] = bytes.fromhex(whole[32:])
            token = bytes.fromhex(whole[:32])
            known.append((text, token, ERASED, region[0] if region else None, None, False))
        return pl.DataFrame(known, KNOWN, orient="row")

    def _resolve(self, texts: pl.Series) -> pl.DataFrame:
        """KNOWN of callers that were not seen before."""
        marks = texts.str.starts_with("erased-")
        if marks.any():
            marks &= texts.str.contains(f"^{contract.ERASED_CALLER}$")
        if marks.any():
            others = self._resolve(texts.filter(~marks))
            return pl.concat([self._read_marks(texts.filter(marks)), others])
        if self._book is None:
            tokens = self._tokens("id", texts.to_list(), masks_of_ids(texts).to_list())
            return pl.DataFrame(
                {"caller": texts, "caller_token": tokens,
                 "caller_key_version": self._versions(tokens), "found_region": None,
                 "found_carrier": None, "is_odd": False}, KNOWN,
            )  # fmt: skip
        found = self._book.look_up(texts)
        tokens = self._tokens(
            "phone", found.get_column("number").to_list(), found.get_column("mask").to_list()
        )  # fmt: skip
        return found.select(
            texts.alias("caller"),
            tokens,
            self._versions(tokens),
            pl.col("region").alias("found_region"),
            pl.col("carrier").alias("found_carrier"),
            (~pl.col("is_phone")).fill_null(True).alias("is_odd"),
        )

    def _versions(self, tokens: pl.Series) -> pl.Series:
        """The key that each token is of."""
        if not self.keys.erased:
            version = pl.lit(self.keys.token, pl.Int16).alias("caller_key_version")
            return pl.select(pl.when(tokens.is_not_null()).then(version)).to_series()
        return pl.Series(
            "caller_key_version",
            [
                None if token is None else ERASED if token in self.keys.erased else self.keys.token
                for token in tokens
            ],
            pl.Int16,
        )

    def _tokens(self, kind: str, values: list[str | None], masks: list[str]) -> pl.Series:
        """Keyed hashes of `values`; what is new is encrypted into `found`, but for the erased."""
        inner_start, outer_start = self._inner.copy(), self._outer
        inner_start.update(_scope(kind, self.source).encode())
        encrypt, saved, found = self.cipher.encrypt, self._saved, self.found
        erasure = self.erasure
        tokens: list[bytes | None] = []
        for value, mask in zip(values, masks, strict=True):
            if value is None:
                tokens.append(None)
                continue
            if erasure:
                pseudonym = erasure.pseudonym(kind, value, self.source)
                if pseudonym in self.keys.erased:
                    tokens.append(pseudonym)
                    continue
            content = value.encode()
            inner, outer = inner_start.copy(), outer_start.copy()
            inner.update(content)
            outer.update(inner.digest())
            token = outer.digest()[:16]
            tokens.append(token)
            if token not in saved:
                saved.add(token)
                found.append((token, kind, encrypt(content), mask))
        return pl.Series("caller_token", tokens, pl.Binary)

    def token(self, kind: str, value: str) -> bytes:
        """The token of a caller as it is kept: a number in E.164 or an id of this source."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"{_scope(kind, self.source)}{value}".encode())
        outer.update(inner.digest())
        return outer.digest()[:16]

    def take_found(self) -> list[Found]:
        """What was found since the last time."""
        taken, self.found = self.found, []
        return taken


class Cipher:
    """AES-256-GCM under the caller encryption key: nonce (12 bytes), then text and tag."""

    def __init__(self, settings: Settings, version: int = 1) -> None:
        self._aead = AESGCM(hashlib.sha256(key_of(settings, "encryption", version)).digest())
        self._nonces: list[bytes] = []

    def encrypt(self, content: bytes) -> bytes:
        """`content`, readable only with the key."""
        if not self._nonces:
            # Drawn in bulk: each draw lets other threads run, and waiting for one's turn again
            # took most of the time.
            drawn = os.urandom(NONCE_BYTES * NONCES_AT_ONCE)
            self._nonces = [
                drawn[start : start + NONCE_BYTES] for start in range(0, len(drawn), NONCE_BYTES)
            ]
        nonce = self._nonces.pop()
        return nonce + self._aead.encrypt(nonce, content, None)

    def decrypt(self, content: bytes) -> bytes:
        """What `encrypt` was given."""
        return self._aead.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], None)
