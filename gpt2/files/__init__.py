"""Read files defensively, and write them atomically."""
