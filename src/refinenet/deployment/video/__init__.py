"""Videos, streams and cameras; start reading with `runner.segment_video`.

`reader` decodes, `stream` reads ahead and reconnects, `writer` encodes, `window` shows; `frames` predicts without
writing, `steady` averages over frames, and `model.VideoModel` has the methods of `RefineNet`.
"""
