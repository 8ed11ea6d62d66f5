"""What tests of every package share: real backends, builders of contract values, and the suites of the seams."""
