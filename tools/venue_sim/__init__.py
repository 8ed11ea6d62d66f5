"""A venue simulator: Binance, Coinbase, CoinGecko and Kraken on loopback, speaking their own protocols.

It is a standalone program (`python -m tools.venue_sim --help`) and knows nothing of the services that connect to it.
"""
