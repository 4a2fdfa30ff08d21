<<<<<<< HEAD
"""Datasets in plain folders: their layouts, and the encoding of their masks."""
=======
"""Datasets in plain folders: their layouts, and how their masks encode classes (`encodings`, `classes_file`)."""
>>>>>>> review
