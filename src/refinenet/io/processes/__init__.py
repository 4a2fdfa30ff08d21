"""Processes and threads: messages to child processes, locks, signals, and work in parallel."""
