"""Kraken spot: WebSocket v2 trades and tickers, asset pairs, OHLC, trades since a time."""
