"""Images with label maps: published, folders, formats, drawn, examined."""
