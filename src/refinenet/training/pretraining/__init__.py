"""Pre-training of encoders on images sorted into folders by class, so that a new encoder needs no download.

An `ImageClassifier` learns the classes; a RefineNet then starts from its encoder. Start reading with `run`.
"""
