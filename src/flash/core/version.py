"""The version of the project. Imports nothing."""

__version__ = "0.1.0"
