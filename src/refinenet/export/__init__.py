"""Networks in the formats of other programs: written, run by the program itself, compared, certified, then kept."""

from refinenet.export.certificate import SIZES, Certificate
from refinenet.export.exporter import Precision, check_target, export_model
from refinenet.export.parity import Bounds
from refinenet.export.quantisation import Int8

__all__ = ["SIZES", "Bounds", "Certificate", "Int8", "Precision", "check_target", "export_model"]
