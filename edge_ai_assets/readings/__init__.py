"""Readings: how files of a plant, or of its simulator, become the one table that all else works on."""
