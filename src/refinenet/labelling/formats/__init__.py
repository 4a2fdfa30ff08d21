"""Formats of annotation tools, written and read: a module and a row in `table.FORMATS` for each."""
