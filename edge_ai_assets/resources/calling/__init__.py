"""Asking a REST service, and asking again when it is out of reach."""
