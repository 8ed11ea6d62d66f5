"""What wakes the ingestor: its loops and its internal HTTP."""
