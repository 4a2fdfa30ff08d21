"""Labels that are likely wrong, found by models not trained on the image. Begin with `run.find_label_errors`."""
