"""Datasets in plain folders: their layouts, and how their masks encode classes (`encodings`, `classes_file`)."""
