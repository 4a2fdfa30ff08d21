"""A corrector of labels in the browser; start reading with `run.correct_labels`.

`corrections.Corrections` holds the images with their drafts and writes what a person accepts, `app` serves them with
the page and its scripts (`static/`). It needs no model: drafts were written before.
"""
