"""Images of any source to samples and back: decoding, named bands, masks, value ranges.

Start reading at `codec.decode` (any image source to pixels); `image_files` alone opens picture files, with Pillow, and
`isolated_decoding` does it in child processes, for files from strangers.
"""
