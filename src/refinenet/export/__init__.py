"""Networks in the formats of other programs: written, run by the program itself, compared, certified, then kept."""

from refinenet.export.certificate import SIZES, Certificate
from refinenet.export.exporter import ExportPrecision, check_target, export_model
from refinenet.export.parity import ParityTolerance
from refinenet.export.quantisation import Int8

__all__ = ["SIZES", "Certificate", "ExportPrecision", "Int8", "ParityTolerance", "check_target", "export_model"]
