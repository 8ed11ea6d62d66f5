"""Values and pure rules of ingest: order, gaps, budgets, staleness. No I/O, no clock, no loop."""
