"""`make bench`: every claim of speed beside its yardstick, measured in one run."""
