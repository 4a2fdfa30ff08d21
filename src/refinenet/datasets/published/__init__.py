"""Published datasets in their owners' layouts.

Each has a module here, which knows the layout of its files, a NAME.json with class names, colours and downloads, and a
row of `catalog.PUBLISHED`.
"""
