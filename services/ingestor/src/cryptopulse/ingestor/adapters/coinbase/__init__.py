"""Coinbase Advanced Trade: market trades, ticker and heartbeats, product list, candles."""
