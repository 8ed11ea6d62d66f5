"""The coins and currencies of the synthetic market, with plausible prices, supplies, ranks and who trades them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset. `price` is the long-run level in USD, `daily_volatility` the standard deviation of a day's return.

    `beta` is the share of the common factor in its returns, `venues` the initials of the venues that trade it
    (b Binance, c Coinbase, k Kraken), `volume_usd` what it turns over in a day on the largest of them.
    """

    symbol: str
    coin_id: str
    name: str
    price: float
    supply: float
    max_supply: float | None
    volume_usd: float
    daily_volatility: float
    beta: float
    image: int
    venues: str


MAJORS: Final = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "DOT", "LINK", "LTC")
STABLECOINS: Final = ("USDT", "USDC")
CURRENCIES: Final = ("USD", "EUR")

# symbol, id, name, price, supply, max supply, volume a day, daily volatility, beta, image, venues
_ROWS: Final[tuple[tuple[str, str, str, float, float, float | None, float, float, float, int, str], ...]] = (
    ("BTC", "bitcoin", "Bitcoin", 67200.0, 19.78e6, 21e6, 1.6e9, 0.022, 0.95, 1, "bck"),
    ("ETH", "ethereum", "Ethereum", 2620.0, 120.4e6, None, 1.1e9, 0.028, 0.90, 279, "bck"),
    ("USDT", "tether", "Tether", 1.0, 119.9e9, None, 9.0e7, 0.0004, 0.0, 325, "ck"),
    ("BNB", "binancecoin", "BNB", 595.0, 145.9e6, 200e6, 2.1e8, 0.024, 0.80, 825, "b"),
    ("SOL", "solana", "Solana", 168.0, 469.9e6, None, 5.8e8, 0.036, 0.85, 4128, "bck"),
    ("USDC", "usd-coin", "USDC", 1.0, 34.9e9, None, 7.0e7, 0.0003, 0.0, 6319, "bck"),
    ("XRP", "ripple", "XRP", 0.545, 56.76e9, 100e9, 2.6e8, 0.032, 0.75, 44, "bck"),
    ("DOGE", "dogecoin", "Dogecoin", 0.141, 146.4e9, None, 3.4e8, 0.042, 0.80, 5, "bck"),
    ("TRX", "tron", "TRON", 0.158, 86.5e9, None, 5.1e7, 0.020, 0.50, 1094, "b"),
    ("TON", "the-open-network", "Toncoin", 5.21, 2.54e9, None, 5.8e7, 0.032, 0.60, 17980, "b"),
    ("ADA", "cardano", "Cardano", 0.352, 35.75e9, 45e9, 9.8e7, 0.034, 0.82, 975, "bck"),
    ("AVAX", "avalanche-2", "Avalanche", 27.6, 406.9e6, 720e6, 1.0e8, 0.040, 0.85, 12559, "bck"),
    ("SHIB", "shiba-inu", "Shiba Inu", 0.0000182, 589.3e12, 589.5e12, 1.1e8, 0.044, 0.78, 11939, "bc"),
    ("LINK", "chainlink", "Chainlink", 11.4, 608.1e6, 1e9, 8.4e7, 0.037, 0.80, 877, "bck"),
    ("BCH", "bitcoin-cash", "Bitcoin Cash", 361.0, 19.78e6, 21e6, 5.2e7, 0.036, 0.70, 780, "bck"),
    ("DOT", "polkadot", "Polkadot", 4.31, 1.5e9, None, 4.6e7, 0.036, 0.82, 12171, "bck"),
    ("LEO", "leo-token", "LEO Token", 6.02, 925.6e6, None, 9.0e5, 0.012, 0.10, 8418, ""),
    ("DAI", "dai", "Dai", 1.0, 3.35e9, None, 2.0e6, 0.0005, 0.0, 9956, "c"),
    ("SUI", "sui", "Sui", 2.06, 2.76e9, 10e9, 2.9e8, 0.052, 0.75, 26375, "bc"),
    ("LTC", "litecoin", "Litecoin", 71.2, 75.1e6, 84e6, 7.7e7, 0.030, 0.72, 2, "bck"),
    ("NEAR", "near", "NEAR Protocol", 4.75, 1.21e9, None, 8.8e7, 0.043, 0.80, 10365, "bc"),
    ("APT", "aptos", "Aptos", 9.9, 518.0e6, None, 7.6e7, 0.045, 0.75, 26455, "bc"),
    ("UNI", "uniswap", "Uniswap", 7.6, 600.0e6, 1e9, 5.6e7, 0.043, 0.75, 12504, "bck"),
    ("PEPE", "pepe", "Pepe", 0.0000101, 420.7e12, 420.7e12, 3.1e8, 0.058, 0.70, 29850, "b"),
    ("ICP", "internet-computer", "Internet Computer", 8.1, 473.1e6, None, 3.0e7, 0.040, 0.75, 14495, "bc"),
    ("XMR", "monero", "Monero", 158.0, 18.4e6, None, 8.0e6, 0.022, 0.45, 69, "k"),
    (
        "FET",
        "fetch-ai",
        "Artificial Superintelligence Alliance",
        1.36,
        2.6e9,
        2.7e9,
        6.4e7,
        0.050,
        0.7,
        5681,
        "bc",
    ),
    ("ETC", "ethereum-classic", "Ethereum Classic", 19.1, 149.3e6, 210.7e6, 3.3e7, 0.034, 0.78, 453, "bck"),
    ("XLM", "stellar", "Stellar", 0.0945, 29.8e9, 50e9, 2.6e7, 0.030, 0.70, 100, "bck"),
    ("STX", "blockstack", "Stacks", 1.79, 1.5e9, 1.818e9, 2.7e7, 0.046, 0.75, 2069, "bc"),
    ("POL", "polygon-ecosystem-token", "POL (ex-MATIC)", 0.372, 7.9e9, None, 3.4e7, 0.040, 0.8, 32440, "bc"),
    ("OKB", "okb", "OKB", 40.5, 60.0e6, None, 2.5e6, 0.018, 0.45, 4463, ""),
    ("AAVE", "aave", "Aave", 152.0, 15.0e6, 16e6, 5.8e7, 0.045, 0.75, 12645, "bck"),
    ("FIL", "filecoin", "Filecoin", 3.72, 597.0e6, 1.96e9, 3.9e7, 0.037, 0.8, 12817, "bck"),
    ("ARB", "arbitrum", "Arbitrum", 0.548, 3.8e9, 10e9, 5.5e7, 0.045, 0.8, 16547, "bc"),
    ("OP", "optimism", "Optimism", 1.68, 1.26e9, 4.29e9, 5.4e7, 0.046, 0.8, 25244, "bc"),
    ("HBAR", "hedera-hashgraph", "Hedera", 0.0531, 37.7e9, 50e9, 1.6e7, 0.035, 0.7, 3688, "bc"),
    ("CRO", "crypto-com-chain", "Cronos", 0.0792, 26.6e9, 30e9, 4.2e6, 0.030, 0.6, 7310, "c"),
    ("MKR", "maker", "Maker", 1280.0, 877.0e3, 1.005e6, 2.3e7, 0.038, 0.65, 1364, "bck"),
    ("ATOM", "cosmos", "Cosmos Hub", 4.55, 391.0e6, None, 2.9e7, 0.035, 0.8, 1481, "bck"),
    ("INJ", "injective-protocol", "Injective", 20.7, 97.7e6, 100e6, 3.7e7, 0.048, 0.78, 12882, "bc"),
    ("RENDER", "render-token", "Render", 5.3, 517.0e6, 644.2e6, 3.6e7, 0.047, 0.75, 11636, "bc"),
    ("IMX", "immutable-x", "Immutable", 1.49, 1.64e9, 2e9, 1.8e7, 0.046, 0.75, 17233, "bc"),
    ("VET", "vechain", "VeChain", 0.0229, 80.98e9, 86.7e9, 1.2e7, 0.037, 0.75, 1167, "bc"),
    ("GRT", "the-graph", "The Graph", 0.168, 9.54e9, 10.8e9, 1.3e7, 0.042, 0.78, 13397, "bck"),
    ("ALGO", "algorand", "Algorand", 0.121, 8.26e9, 10e9, 1.2e7, 0.034, 0.75, 4380, "bck"),
    ("BONK", "bonk", "Bonk", 0.0000217, 74.5e12, 88.9e12, 9.6e7, 0.058, 0.7, 28600, "bc"),
    ("RUNE", "thorchain", "THORChain", 5.15, 337.0e6, 500e6, 4.4e7, 0.050, 0.75, 6595, "b"),
    ("LDO", "lido-dao", "Lido DAO", 1.09, 897.0e6, 1e9, 2.2e7, 0.046, 0.78, 13573, "bc"),
    ("SAND", "the-sandbox", "The Sandbox", 0.254, 2.42e9, 3e9, 1.7e7, 0.041, 0.8, 12129, "bc"),
    ("MANA", "decentraland", "Decentraland", 0.287, 1.94e9, None, 1.1e7, 0.039, 0.8, 878, "bck"),
    ("EOS", "eos", "EOS", 0.461, 1.51e9, 2.1e9, 1.9e7, 0.034, 0.75, 738, "bck"),
    ("XTZ", "tezos", "Tezos", 0.672, 1.01e9, None, 9.4e6, 0.034, 0.75, 976, "bck"),
    ("CRV", "curve-dao-token", "Curve DAO", 0.262, 1.22e9, 2.03e9, 2.8e7, 0.052, 0.7, 12124, "bck"),
    ("KCS", "kucoin-shares", "KuCoin", 8.35, 119.9e6, None, 4.0e5, 0.020, 0.4, 1047, ""),
    ("GT", "gatechain-token", "Gate", 9.02, 91.2e6, None, 6.0e5, 0.018, 0.4, 8183, ""),
    ("XDC", "xdce-crowd-sale", "XDC Network", 0.0301, 14.9e9, None, 3.0e5, 0.030, 0.4, 2912, ""),
    ("BSV", "bitcoin-cash-sv", "Bitcoin SV", 48.6, 19.78e6, 21e6, 2.0e6, 0.033, 0.6, 6799, ""),
    ("WBTC", "wrapped-bitcoin", "Wrapped Bitcoin", 67150.0, 150.6e3, None, 9.0e6, 0.022, 0.95, 7598, "c"),
    ("STETH", "staked-ether", "Lido Staked Ether", 2618.0, 9.77e6, None, 4.0e5, 0.028, 0.90, 13442, ""),
    ("MNT", "mantle", "Mantle", 0.589, 3.37e9, 6.2e9, 6.0e5, 0.034, 0.6, 30980, ""),
    ("FLR", "flare-networks", "Flare", 0.0148, 50.6e9, None, 9.0e5, 0.036, 0.5, 28624, "c"),
    ("BTT", "bittorrent", "BitTorrent", 0.00000091, 968.2e12, 990e12, 3.0e5, 0.028, 0.5, 22457, ""),
    ("BATCAT", "batcat-2", "BatCat", 0.00000594, 9.9e11, 1e12, 2.0e4, 0.075, 0.2, 33333, ""),
)

_CURRENCY_ROWS: Final = (
    Asset("USD", "", "US Dollar", 1.0, 0.0, None, 0.0, 0.0, 0.0, 0, ""),
    Asset("EUR", "", "Euro", 1.085, 0.0, None, 4.0e7, 0.0045, 0.05, 0, "ck"),
)

COINS: Final[tuple[Asset, ...]] = tuple(Asset(*row) for row in _ROWS)
ASSETS: Final[dict[str, Asset]] = {asset.symbol: asset for asset in (*COINS, *_CURRENCY_ROWS)}


def extra_asset(number: int) -> Asset:
    """One of the nameless small coins of `--symbols-extra`: X0001, X0002 and so on, traded everywhere."""
    price = float(f"{10 ** ((number * 37 % 61) / 10 - 4):.4g}")
    name = f"X{number:04d}"
    return Asset(
        name, f"extra-{number}", f"Extra {number}", price, 1e9, None, 2e5, 0.05, 0.6, 90000 + number, "bck"
    )


def asset_of(symbol: str) -> Asset:
    """The asset of a symbol; also the extra ones."""
    found = ASSETS.get(symbol)
    if found is not None:
        return found
    if symbol[:1] == "X" and symbol[1:].isdigit():
        return extra_asset(int(symbol[1:]))
    raise KeyError(symbol)
