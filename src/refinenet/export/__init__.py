"""Export of networks to the formats of other programs, and loading of such untrusted files.

A certificate beside each export says how closely it agrees with PyTorch. Start reading at `exporter.export_model`;
`loading` reads exported files, `quantisation` prepares int8. A new format is a module in `formats`, and a row in its
`table` and its `targets`.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.export.certificate import Certificate
    from refinenet.export.defaults import MAX_DROP, MAX_RISE, SIZES
    from refinenet.export.exporter import check_target, export_model
    from refinenet.export.formats.targets import ExportPrecision, check_path
    from refinenet.export.loading.opening import open_described
    from refinenet.export.quantisation.bounds import DropBounds
    from refinenet.export.quantisation.int8 import Int8
    from refinenet.export.quantisation.recording import choose_int8, record_int8
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "MAX_DROP",
    "MAX_RISE",
    "SIZES",
    "Certificate",
    "DropBounds",
    "ExportPrecision",
    "Int8",
    "check_path",
    "check_target",
    "choose_int8",
    "export_model",
    "open_described",
    "record_int8",
]
