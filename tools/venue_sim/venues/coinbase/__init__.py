"""Coinbase Advanced Trade and Coinbase Exchange, as the simulator serves it."""
