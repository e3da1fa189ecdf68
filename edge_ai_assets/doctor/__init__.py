"""`edge-ai doctor`: one real call to each service that is configured, and what is wrong with it in one line.

A check is a function that gives a finding. Nothing here repairs anything.
"""
