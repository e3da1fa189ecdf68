"""Bodies of requests, of every kind that is taken, to columns or rows; tables and tensors of answers."""
