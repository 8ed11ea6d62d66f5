"""What crosses a process boundary, declared once: messages, topics, symbols, intervals. Pure, no I/O."""
