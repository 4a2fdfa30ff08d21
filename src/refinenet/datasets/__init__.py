"""Images with label maps: published datasets, custom folders and synthetic streets; summaries, splits, checks, repairs.

Begin with `catalog.open_dataset`, which turns a name or a folder into splits, and `dataset.Dataset`. The package
`doctor` finds problems within a dataset, such as duplicates in two splits; `common_images` finds the images that two
datasets share.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.band_reading import open_band_reader
    from refinenet.datasets.catalog import (
        IMAGE_SUFFIXES,
        PUBLISHED,
        UNLABELLED,
        Dataset,
        DatasetSource,
        Sample,
        Server,
        Splits,
        TrainingSource,
        as_sources,
        check_dataset,
        choose_classes,
        find_root,
        find_server,
        is_drawn,
        is_folder_dataset,
        is_unlabelled,
        list_files,
        no_labels,
        open_dataset,
        open_training_datasets,
        read_classes,
        read_for_model,
        split_names,
    )
    from refinenet.datasets.class_statistics import (
        ClassCounts,
        count_classes,
        count_each,
        log_weights,
        median_frequency_weights,
    )
    from refinenet.datasets.common_images import find_common_images
    from refinenet.datasets.contact_sheet import choose_images
    from refinenet.datasets.dataset import spread
    from refinenet.datasets.folder.band_files import is_band_folder, open_band_folder
    from refinenet.datasets.formats.lookup import CLASSES_FILE
    from refinenet.datasets.info import describe, write_contact_sheet
    from refinenet.datasets.joining import join
    from refinenet.datasets.preparation import PrepareReport, list_datasets, prepare
    from refinenet.datasets.quantity_choice import with_quantities
    from refinenet.datasets.split import group_stems, split_folder, split_stems, write_lists
    from refinenet.datasets.street_scenes import draw_street
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "CLASSES_FILE",
    "IMAGE_SUFFIXES",
    "PUBLISHED",
    "UNLABELLED",
    "ClassCounts",
    "Dataset",
    "DatasetSource",
    "PrepareReport",
    "Sample",
    "Server",
    "Splits",
    "TrainingSource",
    "as_sources",
    "check_dataset",
    "choose_classes",
    "choose_images",
    "count_classes",
    "count_each",
    "describe",
    "draw_street",
    "find_common_images",
    "find_root",
    "find_server",
    "group_stems",
    "is_band_folder",
    "is_drawn",
    "is_folder_dataset",
    "is_unlabelled",
    "join",
    "list_datasets",
    "list_files",
    "log_weights",
    "median_frequency_weights",
    "no_labels",
    "open_band_folder",
    "open_band_reader",
    "open_dataset",
    "open_training_datasets",
    "prepare",
    "read_classes",
    "read_for_model",
    "split_folder",
    "split_names",
    "split_stems",
    "spread",
    "with_quantities",
    "write_contact_sheet",
    "write_lists",
]
