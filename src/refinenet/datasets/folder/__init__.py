"""Folders of one's own: how they lie (layouts), and what the values in their masks mean."""
