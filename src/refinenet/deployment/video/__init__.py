"""Videos, streams and cameras; start reading with `runner.segment_video`.

`reader` decodes, `stream` reads ahead and reconnects, `writer` encodes; `frames` predicts without writing.
"""
