"""What a site keeps until it may go: scores and feedback, from before their answer on, in one SQLite file."""
