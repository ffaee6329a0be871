"""Evaluations for people to read. Imports neither torch nor lightning."""

from flash.text.classification.report.table import format_table

__all__ = ["format_table"]
