"""The engine of a training: `Trainer` (the loop), `Learner` (one step), `TrainState`, and settings that are "auto".

`state` says what a checkpoint holds.
"""
