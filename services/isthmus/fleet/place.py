"""From a drive's local metres to WGS-84 and back, on the ellipsoid's tangent plane at the drive's origin.

Within the few kilometres of a drive the plane is good to centimetres. Places are plain WGS-84 in both fleets, not the
shifted GCJ-02 of Chinese maps: a vehicle's receiver gives WGS-84.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEMI_MAJOR = 6_378_137.0
"""WGS-84 equatorial radius, m."""
ECCENTRICITY_SQUARED = 6.694379990141e-3
"""WGS-84 first eccentricity, squared."""


def metres_per_degree(latitude: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return metres per degree to the north and to the east at `latitude`, deg."""
    phi = np.radians(latitude)
    root = 1.0 - ECCENTRICITY_SQUARED * np.sin(phi) ** 2
    meridian = SEMI_MAJOR * (1.0 - ECCENTRICITY_SQUARED) / root**1.5
    normal = SEMI_MAJOR / np.sqrt(root)
    return np.radians(meridian), np.radians(normal * np.cos(phi))


def to_wgs84(
    origin: tuple[NDArray[np.float64], NDArray[np.float64]], east: NDArray[np.float64], north: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitude and longitude, deg, of points `east` and `north` of `origin` (latitude, longitude), m."""
    per_north, per_east = metres_per_degree(origin[0])
    return origin[0] + north / per_north, origin[1] + east / per_east
