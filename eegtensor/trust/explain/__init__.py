"""Looking inside: saliency, exact linear maps, audits of attributions and data."""

from eegtensor.trust.explain.diffroar import (
    DiffROAR,
    diff_roar,
    mask_units,
    null_mass,
)
from eegtensor.trust.explain.linearmaps import LinearMaps, exact_radius, linear_maps
from eegtensor.trust.explain.normgrad import (
    class_sensitivity,
    combined_norm_grad,
    norm_grad,
    spd_norm_grad,
)
from eegtensor.trust.explain.probes import PROBES, probe, smooth_grad
from eegtensor.trust.explain.shortcuts import (
    Shortcut,
    ShortcutAudit,
    audit_shortcuts,
)

__all__ = [
    "PROBES",
    "DiffROAR",
    "LinearMaps",
    "Shortcut",
    "ShortcutAudit",
    "audit_shortcuts",
    "class_sensitivity",
    "combined_norm_grad",
    "diff_roar",
    "exact_radius",
    "linear_maps",
    "mask_units",
    "norm_grad",
    "null_mass",
    "probe",
    "smooth_grad",
    "spd_norm_grad",
]
