"""Networks exported to other formats, run from these: `.onnx` files, and OpenVINO's `.xml` with `.bin` beside.

Files may come from strangers. They are read once, into memory (`opening`, the door); a process of its own checks and
tries them there (`inspector`), and what it found harmless, byte for byte, is what runs.
"""
