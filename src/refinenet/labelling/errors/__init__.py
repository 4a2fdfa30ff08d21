"""Labels that are likely wrong, found by models not trained on the image. Begin with `run.find_label_errors`.

`fold_models` trains the models, `judging` runs them, `suspects` finds the regions and `suspect_scores` ranks them;
`suspect_page` shows them, and `decisions` reads what a person decided there.
"""
