"""Int8: the ranges of activations that NNCF finds on images, the accuracy that they cost, and their record.

`int8` quantises a network and writes it; `recording` stores the ranges in the model file, so that int8 later needs no
images. `bounds` measures the loss of accuracy, `graph` reads what NNCF has inserted.
"""
