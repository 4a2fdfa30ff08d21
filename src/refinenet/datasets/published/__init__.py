"""Published datasets in their owners' layouts: for each a module and NAME.json here, and a row of
`catalog.PUBLISHED`.
"""
