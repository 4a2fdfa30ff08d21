"""One image to its result."""
