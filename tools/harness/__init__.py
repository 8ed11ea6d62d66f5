"""The whole system as processes, for end-to-end tests, faults and benchmarks."""
