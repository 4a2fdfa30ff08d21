"""Training engine: `Trainer` (the loop), `Learner` (one step) and `TrainState`.

`auto_settings` chooses the image size, the batch size and the learning rate where they are "auto".
`state` and `Learner.state` define what a checkpoint holds; `records.checkpoints` writes and reads the files.
"""
