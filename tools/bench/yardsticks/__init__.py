"""What others would write: the servers that ours are measured beside."""
