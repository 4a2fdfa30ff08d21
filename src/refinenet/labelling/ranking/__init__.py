"""Choice of the images whose labels would teach a model most. Begin with `run.rank_images`."""
