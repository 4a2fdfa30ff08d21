"""Datasets in plain folders: their layouts, and the meaning of the values in their masks."""
