"""The web application of a server: what it answers at which path, and in which shape."""
