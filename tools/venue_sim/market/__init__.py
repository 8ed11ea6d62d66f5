"""The market behind the venues: assets, prices, history, tapes and the live generator."""
