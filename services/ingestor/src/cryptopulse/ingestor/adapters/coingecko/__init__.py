"""CoinGecko: coins with rank, image and reference prices; never a market of ours."""
