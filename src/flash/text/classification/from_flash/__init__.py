"""What scripts that were written for Lightning Flash say, in this library's terms."""
