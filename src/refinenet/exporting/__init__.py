"""Networks in the formats of other programs: written, run by the program itself, compared, certified, then kept."""

from refinenet.exporting.certificate import Certificate
from refinenet.exporting.comparison import Bounds
from refinenet.exporting.door import Precision, check_target, export_model
from refinenet.exporting.int8 import Int8
from refinenet.exporting.latency import SIZES

__all__ = ["SIZES", "Bounds", "Certificate", "Int8", "Precision", "check_target", "export_model"]
