"""Published datasets in their owners' layouts: one module and one JSON file for each."""
