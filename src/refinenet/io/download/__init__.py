"""Complete and verified downloads, and safe unpacking of archives.

Begin with `download.fetch` and `archives.unpack`.
"""
