"""Many images, large images, videos, clusters."""
