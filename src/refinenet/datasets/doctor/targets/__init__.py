"""Checks of depth, normals and other quantities: `listing` finds their files, `scan` reads them, `rules` judge them."""
