"""Readers: from files, data frames and lists to a table of texts and targets."""
