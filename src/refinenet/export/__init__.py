"""Networks in the formats of other programs: written, run by the program itself, compared, certified, then kept."""

from refinenet.export.certificate import Certificate
from refinenet.export.exporter import Precision, check_target, export_model
from refinenet.export.int8 import Int8
from refinenet.export.latency import SIZES
from refinenet.export.parity import Bounds

__all__ = ["SIZES", "Bounds", "Certificate", "Int8", "Precision", "check_target", "export_model"]
