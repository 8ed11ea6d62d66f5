"""Recordings as a source: their frames are served under their own dates, REST is derived from their trades."""
