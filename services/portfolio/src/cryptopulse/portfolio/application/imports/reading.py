"""What all readers of files share: decoding, finding the header, amounts, times, assets, and the verdict on a row."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import charset_normalizer

from cryptopulse.common.contracts.http.amounts import exact_amount
from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.transactions import FIAT, USD_STABLE

MAX_ROWS: Final = 120_000
MAX_CELL: Final = 10_000
PREAMBLE_LINES: Final = 20
SAMPLE_BYTES: Final = 65_536
_BROKEN: Final = re.compile("[\x00\ud800-\udfff]")
_SYMBOLS: Final = str.maketrans("", "", "$€£¥₿ \u00a0'")


class RowError(ValueError):
    """A row that cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row (or a group of rows, named by its first) means: drafts, or why it is ignored, or what is wrong."""

    row: int
    drafts: tuple[Draft, ...] = ()
    ignored: str | None = None
    error: str | None = None
    own_id: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to read what a file leaves open."""

    utc_offset: timedelta = timedelta(0)
    account: str | None = None
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One row with its number in the file and cells by normalised column name; `raw` are the cells as they came."""

    number: int
    cells: Mapping[str, str]
    raw: Sequence[str] = field(default=())

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "").strip()

    def first(self, *names: str) -> str:
        """The first of several columns that is there and not empty."""
        return next((self[name] for name in names if self[name]), "")


def decoded(body: bytes) -> tuple[str, str]:
    """The text and the encoding it was in. Raises `Invalid` for what is no text."""
    if not body.strip():
        raise Invalid("The file is empty.", code="empty-file")
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if body.startswith(mark):
            return _marked(body, encoding), encoding
    if b"\x00" in body[:SAMPLE_BYTES]:
        raise Invalid("The file is not text.", code="not-text")
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        text = body.decode("utf-8", "surrogateescape")
        # What decodes to several bytes a character is no accident: a few broken ones are damage, and of their rows only.
        if error.start >= len(body) - 3 or len(body) - len(text) > len(_BROKEN.findall(text)):
            return text, "utf-8"
    best = charset_normalizer.from_bytes(body[:SAMPLE_BYTES]).best()
    encoding = best.encoding if best is not None else "cp1252"
    try:
        return body.decode(encoding), encoding
    except UnicodeDecodeError:
        return body.decode("latin-1"), "latin-1"


def _marked(body: bytes, encoding: str) -> str:
    """The text after a byte order mark; a character that was cut off at the end is left out."""
    if encoding == "utf-8-sig":
        return body[3:].decode("utf-8", "surrogateescape")
    try:
        text = body[: len(body) & ~1].decode(encoding)
    except UnicodeDecodeError as error:
        raise Invalid(
            f"The file says that it is {encoding}, but cannot be read so.", code="bad-encoding"
        ) from error
    if not text.strip():
        raise Invalid("The file is empty.", code="empty-file")
    return text


def checked_text(text: str) -> str:
    """A text that can be kept. Raises `RowError` for bytes that are no characters and for NUL."""
    if _BROKEN.search(text):
        raise RowError("the row holds bytes that are not valid text")
    return text


def normal(name: str) -> str:
    """A column's name without case, quotes and runs of blanks."""
    return re.sub(r"\s+", " ", name.strip().strip("\ufeff\"'").lower())


def delimiters(text: str) -> list[str]:
    """What may part the cells, the likeliest first; free texts can make that the wrong one."""
    head = text[:4096]
    return sorted(",;\t", key=head.count, reverse=True)


def tables(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a separated file with their line numbers; a row that a quote never closes ends at the cell limit."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    csv.field_size_limit(MAX_CELL * 4)
    number = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield reader.line_num, [f"\0{error}"]
            continue
        number += 1
        if number > MAX_ROWS + PREAMBLE_LINES:
            raise Invalid(f"A file has at most {MAX_ROWS} rows: split it.", code="too-many-rows")
        yield reader.line_num, row


def lines_of(columns: Sequence[str], rows: Iterable[tuple[int, list[str]]]) -> Iterator[Line | Outcome]:
    """Rows under their header; an outcome for one that does not fit it. Columns of the same name get a number: `cur.#2`."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for column in columns:
        name = normal(column)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if cells and cells[0].startswith("\0"):
            yield Outcome(number, error=f"the row cannot be read: {cells[0][1:]}")
        elif len(cells) < len(names) and len(cells) < max(2, len(names) - 3):
            yield Outcome(number, error=f"the row has {len(cells)} cells, its header {len(names)}")
        elif any(len(cell) > MAX_CELL for cell in cells):
            yield Outcome(number, error="a cell is longer than 10,000 characters")
        elif _BROKEN.search("".join(cells)):
            yield Outcome(number, error="the row holds bytes that are not valid text")
        else:
            yield Line(number, dict(zip(names, cells, strict=False)), cells)


def amount(text: str, name: str = "amount") -> Decimal:
    """A number as files print it: currency signs, thousands commas, brackets for negatives. Raises `RowError`."""
    cleaned = text.translate(_SYMBOLS)
    negative = cleaned.startswith("(") and cleaned.endswith(")")
    cleaned = cleaned.strip("()")
    if "," in cleaned and re.fullmatch(r"-?\d+,\d{1,2}", cleaned) and "." not in cleaned:
        cleaned = cleaned.replace(",", ".")
    cleaned = cleaned.replace(",", "")
    if not cleaned:
        raise RowError(f"{name} is missing")
    try:
        value = exact_amount(cleaned)
    except ValueError as error:
        raise RowError(f"{name}: {error}") from error
    return -value if negative else value


def amount_or_none(text: str, name: str = "amount") -> Decimal | None:
    """None where the cell is empty or a dash."""
    return None if text.strip() in {"", "-", "--", "N/A"} else amount(text, name)


_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S", "%y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M",
    "%Y-%m-%d %H:%M", "%Y-%m-%d", "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y-%m-%d %H:%M:%S %z",
)  # fmt: skip


def time_us(text: str, offset: timedelta = timedelta(0)) -> int:
    """A time as files print it, in microseconds UTC; `offset` is the zone of one that names none. Raises `RowError`."""
    cleaned = text.strip()
    parsed = None
    if re.match(r"\d{4}-\d\d-\d\d", cleaned):
        try:
            parsed = datetime.fromisoformat(cleaned.removesuffix(" UTC"))
        except ValueError:
            parsed = None
        if parsed is not None and cleaned.endswith(" UTC"):
            parsed = parsed.replace(tzinfo=UTC)
    for pattern in _FORMATS if parsed is None else ():
        try:
            parsed = datetime.strptime(cleaned, pattern)  # noqa: DTZ007 - the zone follows
            break
        except ValueError:
            continue
    if parsed is None:
        raise RowError(f"{text!r:.40} is not a time")
    try:
        aware = parsed if parsed.tzinfo else (parsed - offset).replace(tzinfo=UTC)
        aware = aware.astimezone(UTC)
    except OverflowError as error:
        raise RowError(f"{text!r:.40} is not between the years 2000 and 2100") from error
    if not 2000 <= aware.year < 2100:
        raise RowError(f"{text!r:.40} is not between the years 2000 and 2100")
    return int(aware.replace(microsecond=0).timestamp()) * 1_000_000 + aware.microsecond


def exchanged(
    at_us: int, away: str, away_quantity: Decimal, into: str, into_quantity: Decimal, **more: Any
) -> Draft:
    """What was given for what: a buy or sale when one side is money, a trade between coins otherwise."""
    if is_money(away) and not is_money(into):
        return Draft(
            kind="buy",
            asset=into,
            quantity=into_quantity,
            total=away_quantity,
            currency=away,
            at_us=at_us,
            custom_asset=True,
            **more,
        )
    if is_money(into) and not is_money(away):
        return Draft(
            kind="sell",
            asset=away,
            quantity=away_quantity,
            total=into_quantity,
            currency=into,
            at_us=at_us,
            custom_asset=True,
            **more,
        )
    if away in FIAT and into not in FIAT:
        return Draft(
            kind="buy",
            asset=into,
            quantity=into_quantity,
            total=away_quantity,
            currency=away,
            at_us=at_us,
            custom_asset=True,
            **more,
        )
    if into in FIAT and away not in FIAT:
        return Draft(
            kind="sell",
            asset=away,
            quantity=away_quantity,
            total=into_quantity,
            currency=into,
            at_us=at_us,
            custom_asset=True,
            **more,
        )
    return Draft(
        kind="trade", asset=away, quantity=away_quantity, counter_asset=into, counter_quantity=into_quantity,
        at_us=at_us, custom_asset=True, **more,
    )  # fmt: skip


def is_money(asset: str) -> bool:
    """Fiat or a stablecoin of the dollar."""
    return asset in FIAT or asset in USD_STABLE


def asset_name(text: str) -> str:
    """An asset of a file, in capitals. Raises `RowError`."""
    name = text.strip()
    if not name or len(name) > 64 or any(ord(letter) < 32 for letter in name):
        raise RowError("the asset is missing")
    return name.upper()


def fingerprinted(outcomes: Iterable[Outcome], format_name: str) -> Iterator[Outcome]:
    """Drafts without an id of their own get one of their content; identical rows are told apart by their ordinal."""
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        drafts = []
        for draft in outcome.drafts:
            if draft.external_id is not None:
                drafts.append(draft)
                continue
            facts = (
                format_name, draft.kind, draft.asset, draft.at_us, draft.quantity, draft.price, draft.total,
                draft.currency, draft.counter_asset, draft.counter_quantity, draft.fee, draft.fee_asset, draft.account,
            )  # fmt: skip
            digest = hashlib.blake2b(repr([str(fact) for fact in facts]).encode(), digest_size=16).hexdigest()
            seen[digest] += 1
            drafts.append(replace(draft, fingerprint=f"{digest}:{seen[digest]}"))
        yield replace(outcome, drafts=tuple(drafts))


Kind = Literal["csv", "json"]
