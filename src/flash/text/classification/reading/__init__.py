"""A source becomes a table of texts and targets, and predictions become a file."""
