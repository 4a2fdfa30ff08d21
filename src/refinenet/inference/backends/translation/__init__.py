"""Translation of networks into graphs of faster engines, and the cache of translated networks."""
