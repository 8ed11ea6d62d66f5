"""The formats that are known, told apart by the set of columns in their header."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.imports import binance, coinbase, kraken, trackers
from cryptopulse.portfolio.application.imports.reading import (
    PREAMBLE_LINES,
    Line,
    Options,
    Outcome,
    delimiters,
    fingerprinted,
    lines_of,
    normal,
    tables,
)

Reader = Callable[[Iterable[Line], Options], Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its name, the columns that its header must have, and its reader."""

    name: str
    columns: frozenset[str]
    read: Reader


def _format(name: str, columns: str, read: Reader) -> Format:
    return Format(name, frozenset(columns.split(",")), read)


FORMATS: Final = (
    _format("cryptopulse", "timestamp,type,asset,quantity,counter_asset,fee_asset,account", trackers.own),
    _format("binance_trades", "pair,side,price,executed,amount,fee", binance.trades),
    _format("binance_trades_old", "market,type,price,amount,total,fee,fee coin", binance.trades_old),
    _format("binance_history", "account,operation,coin,change,remark", binance.history),
    _format("binance_withdrawals", "coin,network,amount,fee,address,txid,status", binance.withdrawals),
    _format("binance_deposits", "coin,network,amount,address,txid,status", binance.deposits),
    _format("coinbase", "id,timestamp,transaction type,asset,quantity transacted", coinbase.transactions),
    _format("coinbase_old", "timestamp,transaction type,asset,quantity transacted", coinbase.transactions),
    _format("kraken_ledgers", "txid,refid,time,type,subtype,asset,amount,fee,balance", kraken.ledgers),
    _format("kraken_trades", "txid,ordertxid,pair,time,type,price,cost,fee,vol", kraken.trades),
    _format("cointracking", "type,buy,cur.,sell,cur.#2,fee,cur.#3,date", trackers.cointracking),
    _format(
        "koinly",
        "date,type,sending wallet,sent amount,sent currency,receiving wallet,received amount,received currency",
        trackers.koinly_history,
    ),
    _format(
        "koinly", "date,sent amount,sent currency,received amount,received currency,label", trackers.koinly
    ),
)
NAMES: Final = (*dict.fromkeys(known.name for known in FORMATS), "ghostfolio")


def read_file(text: str, wanted: str | None, options: Options) -> tuple[str, Iterator[Outcome]]:
    """The format's name and the verdicts, row by row. Raises `Invalid` when the format is not known or not the wanted one."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith(("{", "[")):
        if wanted not in {None, "ghostfolio"}:
            raise Invalid(f"The file is JSON, and no {wanted} file.", code="wrong-format")
        return "ghostfolio", fingerprinted(trackers.ghostfolio(stripped, options), "ghostfolio")
    for delimiter in delimiters(text):
        rows = tables(text, delimiter)
        head = list(islice(rows, PREAMBLE_LINES))
        for index, (_, cells) in enumerate(head):
            names = set(_numbered(cells))
            found = next(
                (known for known in FORMATS if known.columns <= names and wanted in {None, known.name}), None
            )
            if found is not None:
                lines = lines_of(cells, chain(head[index + 1 :], rows))
                return found.name, fingerprinted(_read(found, lines, options), found.name)
    if wanted is not None:
        raise Invalid(f"The file has no header of the format {wanted}.", code="wrong-format")
    raise Invalid(
        f"No header of a known format is in the first {PREAMBLE_LINES} lines; known are: {', '.join(NAMES)}.",
        code="unknown-format",
    )


def _numbered(cells: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for cell in cells:
        name = normal(cell)
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def _read(found: Format, lines: Iterable[Line | Outcome], options: Options) -> Iterator[Outcome]:
    """Good lines go to the reader, unreadable ones are verdicts already."""
    broken: list[Outcome] = []

    def good() -> Iterator[Line]:
        for line in lines:
            if isinstance(line, Outcome):
                broken.append(line)
            else:
                yield line

    yield from found.read(good(), options)
    yield from broken
