"""Binance spot: trade and best-bid-offer streams, product list, klines, historical trades."""
