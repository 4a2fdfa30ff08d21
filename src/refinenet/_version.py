"""Version of the package; keep it equal to the one in `pyproject.toml`."""

__version__ = "1.0.0a1"
