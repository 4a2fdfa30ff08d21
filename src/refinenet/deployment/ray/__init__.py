"""Runs on the machines of a Ray cluster; start reading with `engine.segment_with_ray`.

`reading` and `tasks` contain the work of Ray's processes, `storage` reads and writes local files and object stores,
`journal` makes runs resumable.
"""
