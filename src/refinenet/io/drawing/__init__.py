"""Drawing on images: legends, colour bars, and classes over an image."""
