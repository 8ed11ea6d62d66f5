"""Coinbase's Exchange feed, the second dialect: matches by product, heartbeats that name the newest trade."""
