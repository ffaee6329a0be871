"""Shared by all tasks: errors, files, finetuning strategies, precision."""
