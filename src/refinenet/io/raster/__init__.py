"""Rasters of any size: read, cut and written in parts, with bands, nodata values and georeferencing.

Begin with `reader.open_source`; `bands` chooses which bands become red, green and blue. `band_reader` does the same for
models of named bands.
"""
