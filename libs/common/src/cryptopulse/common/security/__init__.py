"""Who calls, and how we know: tokens of the public API and the short-lived ones between services."""
