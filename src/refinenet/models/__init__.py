"""Networks, model files, and importers of published weights (PyTorch checkpoints, MATLAB files).

Start reading at `network.Network`, whose `forward` is the architecture: `encoders/`, `decoder` (RefineBlocks with
residual conv units and chained residual pooling) and `heads`; and at `files.model_file` for the file format.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.models.architecture import Architecture, ModelType
    from refinenet.models.batch_norm import apply_batch_norm, refuse_single_values, refuse_unlearned_statistics
    from refinenet.models.batch_norm_config import BatchNormConfig
    from refinenet.models.class_mapping import check_same_classes, take_classes
    from refinenet.models.decoder import upsample
    from refinenet.models.decoder_config import DECODER_PRESETS
    from refinenet.models.encoders.encoder import Encoder, feature_info
    from refinenet.models.encoders.feature_info import PUBLISHED_RESNETS, STRIDES
    from refinenet.models.encoders.installed_weights import find_distribution
    from refinenet.models.factory import choose_device, locate_model, open_model, open_network
    from refinenet.models.files.file_checks import MAX_FILE_BYTES, printable
    from refinenet.models.files.hub import MODEL_FILE, HubAddress, fetch_model, pin, push
    from refinenet.models.files.hub_card import write_hub_card
    from refinenet.models.files.int8_record import Int8Record, QuantisedLayer, QuantisedMap
    from refinenet.models.files.licences import choose_licence
    from refinenet.models.files.model_card import (
        BUNDLED,
        CERTIFICATE_ENDING,
        HEADER_KEY,
        ModelCard,
        bundled_path,
        describe_bundled,
        find_bundled,
        make_header,
        read_card,
        read_graph_metadata,
        read_header,
    )
    from refinenet.models.files.model_file import load, read_dtype, save
    from refinenet.models.files.tensor_files import CORRUPT_FILE_ERRORS, check_tensors, digest
    from refinenet.models.finishing import finish, finish_deviations, split_maps
    from refinenet.models.heads import ScaledHead
    from refinenet.models.inference_graph import (
        FREE_SIZES,
        INPUT,
        LABELS,
        DeployedNetwork,
        GraphResult,
        Maps,
        Weights,
        example_images,
        fuse,
        list_results,
        network_to_deploy,
        note_weights,
        trace,
        without_changes_in_place,
    )
    from refinenet.models.model_spec import ModelSpec, SizeName, exported_model_message, split_first_argument
    from refinenet.models.network import Network
    from refinenet.models.recognition import recognise
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "BUNDLED",
    "CERTIFICATE_ENDING",
    "CORRUPT_FILE_ERRORS",
    "DECODER_PRESETS",
    "FREE_SIZES",
    "HEADER_KEY",
    "INPUT",
    "LABELS",
    "MAX_FILE_BYTES",
    "MODEL_FILE",
    "PUBLISHED_RESNETS",
    "STRIDES",
    "Architecture",
    "BatchNormConfig",
    "DeployedNetwork",
    "Encoder",
    "GraphResult",
    "HubAddress",
    "Int8Record",
    "Maps",
    "ModelCard",
    "ModelSpec",
    "ModelType",
    "Network",
    "QuantisedLayer",
    "QuantisedMap",
    "ScaledHead",
    "SizeName",
    "Weights",
    "apply_batch_norm",
    "bundled_path",
    "check_same_classes",
    "check_tensors",
    "choose_device",
    "choose_licence",
    "describe_bundled",
    "digest",
    "example_images",
    "exported_model_message",
    "feature_info",
    "fetch_model",
    "find_bundled",
    "find_distribution",
    "finish",
    "finish_deviations",
    "fuse",
    "list_results",
    "load",
    "locate_model",
    "make_header",
    "network_to_deploy",
    "note_weights",
    "open_model",
    "open_network",
    "pin",
    "printable",
    "push",
    "read_card",
    "read_dtype",
    "read_graph_metadata",
    "read_header",
    "recognise",
    "refuse_single_values",
    "refuse_unlearned_statistics",
    "save",
    "split_first_argument",
    "split_maps",
    "take_classes",
    "trace",
    "upsample",
    "without_changes_in_place",
    "write_hub_card",
]
