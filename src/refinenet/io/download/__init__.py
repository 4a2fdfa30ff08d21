"""Downloads that are complete and verified, and archives unpacked safely into a folder.

Begin with `download.fetch` and `archives.unpack`.
"""
