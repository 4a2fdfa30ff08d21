"""Networks in the formats of other programs: written, run by the program itself, compared, certified, then kept."""

from refinenet.exporting.certificate import Bounds, Certificate
from refinenet.exporting.door import check_target, export_model

__all__ = ["Bounds", "Certificate", "check_target", "export_model"]
