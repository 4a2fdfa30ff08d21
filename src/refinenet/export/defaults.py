"""Defaults of an export, in a module of their own, so that they can be read without PyTorch."""

SIZES = ((360, 480), (512, 512))
"""Heights and widths of the images for timing."""
MAX_DROP = 0.005
"""Largest drop of the mIoU in int8: half a percentage point."""
MAX_RISE = 0.05
"""Largest relative rise of the root mean squared error of another output in int8."""
