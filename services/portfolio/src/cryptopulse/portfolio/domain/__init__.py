"""Values and pure functions of the books: postings, lots, positions, performance. No I/O, no clock."""
