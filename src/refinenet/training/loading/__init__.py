"""Loading of training batches: `Loader`, its worker processes, and a cache of decoded images."""
