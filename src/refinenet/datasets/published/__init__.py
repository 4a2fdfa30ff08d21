"""Published datasets in their owners' layouts: for each a module, a JSON file, and a row of `catalog.PUBLISHED`."""
