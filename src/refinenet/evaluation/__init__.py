"""One pass over a dataset to metrics, report and comparison."""
