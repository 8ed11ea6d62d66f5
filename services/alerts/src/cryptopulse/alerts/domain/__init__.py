"""Rules, their evaluation, signatures and addresses: values and pure functions."""
