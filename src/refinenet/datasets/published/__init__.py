"""Published datasets in their owners' layouts.

Each has a module and a NAME.json here, and a row of `catalog.PUBLISHED`.
"""
