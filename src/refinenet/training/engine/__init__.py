"""Training engine: `Trainer` (the loop), `Learner` (one step), `TrainState`, and `auto_settings`
(image size, batch size and learning rate "auto").

`state` and `Learner.state` define what a checkpoint holds; `records.checkpoints` writes and reads the files.
"""
