"""Compatibility with scripts that were written for Lightning Flash."""
