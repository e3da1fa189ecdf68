"""The connected form: letters to a queue, the function that forwards what may leave, and its receipts."""
