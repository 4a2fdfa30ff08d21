"""Files, images, downloads and the terminal, without pytorch."""
