"""Datasets in plain folders: their layouts, and the encoding of their masks."""
