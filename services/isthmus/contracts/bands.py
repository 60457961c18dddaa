"""Bands: how exact figures become coarse ones before they cross.

Banding is disclosure control, not differential privacy; a crossing that holds banded figures says so.
"""

from __future__ import annotations

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.orders import Evaluation, Figures

VEHICLE_BAND = 10
WINDOW_BAND = 1_000
MISS_BAND_PPM = 10_000


def to_band(value: int, width: int) -> int:
    """Round `value` to the nearest multiple of `width`, halves upward.

    >>> to_band(14, 10), to_band(15, 10), to_band(4, 10)
    (10, 20, 0)
    """
    return (2 * value + width) // (2 * width) * width


def band_contributors(exact: Contributors) -> Contributors:
    """Return `exact` in bands of ten vehicles and a thousand windows, never below one band (a weight of zero)."""
    return Contributors(
        vehicles=max(VEHICLE_BAND, to_band(exact.vehicles, VEHICLE_BAND)),
        windows=max(WINDOW_BAND, to_band(exact.windows, WINDOW_BAND)),
    )


def band_evaluation(exact: Evaluation, band_um: int) -> Evaluation:
    """Return `exact` with displacements in bands of `band_um` micrometres and miss rates in whole percent."""
    figures = tuple(
        Figures(
            predictor=f.predictor,
            ade_um=to_band(f.ade_um, band_um),
            fde_um=to_band(f.fde_um, band_um),
            miss_ppm=min(1_000_000, to_band(f.miss_ppm, MISS_BAND_PPM)),
        )
        for f in exact.figures
    )
    return Evaluation(version=1, slot=exact.slot, figures=figures)
