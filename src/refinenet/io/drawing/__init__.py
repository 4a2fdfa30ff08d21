"""Drawing on images: legends, colour bars, and classes over an image.

Start reading at `overlay.draw_overlay`; `legend.add_legend` and `colour_bar.draw_colour_bar` go below a picture.
"""
