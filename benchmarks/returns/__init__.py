"""Modules of `bench_returns`."""
