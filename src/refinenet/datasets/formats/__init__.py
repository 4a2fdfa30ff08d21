"""How labels are stored in files of others: MATLAB's, COCO's, LabelMe's, PNGs whose values need a table.

Nothing here knows a dataset; datasets are made of these readers.
"""
