"""Use cases over ports: portfolios, transactions, valuation, performance, imports."""
