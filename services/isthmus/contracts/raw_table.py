"""The canonical raw table: what a drive is before it is sealed.

One row is one road user at one instant, as the recording vehicle (the ego, `track_id` 0) saw it. A drive is all rows
of one `scene_id`; it has exactly one ego and one recording vehicle. Rows are ordered by `scene_id`, `t`, `track_id`.
The table is stored as one file per column group, all in the same row order.

`engaged` is 1 while the recording vehicle's driving function drives and 0 while its driver does: the same for all rows
of an instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

EGO_TRACK = 0
SAMPLE_RATE_HZ = 5


@unique
class Group(StrEnum):
    """A column group: the unit in which keys are released."""

    IDENTITY = "identity"
    PLACE = "place"
    MOTION = "motion"
    DRIVES = "drives"
    """One row a drive, derived at ingest (`contracts.tables`)."""
    MINUTES = "minutes"
    """One row a minute of a drive, derived at ingest."""


RAW_GROUPS = (Group.IDENTITY, Group.PLACE, Group.MOTION)
"""Groups of the raw table itself: one file each, all in the same row order."""


@unique
class Dtype(StrEnum):
    """Storage types of columns, in Arrow's names."""

    STRING = "string"
    INT32 = "int32"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the raw table.

    Attributes:
        name: its name.
        group: the file it is stored in.
        dtype: its type.
        unit: SI unit, or empty.
        low: smallest value accepted at ingest, None where there is none.
        high: largest value accepted at ingest, None where there is none.
        values: the only values accepted, None where any is.
        required: False where a recording may lack it (stored as null).
    """

    name: str
    group: Group
    dtype: Dtype
    unit: str = ""
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None
    required: bool = True


ROAD_TYPES = ("urban_intersection", "roundabout", "arterial", "freeway")
ROAD_USER_TYPES = ("car", "truck", "bus", "two_wheeler", "pedestrian")

RAW_COLUMNS = (
    Column("vehicle", Group.IDENTITY, Dtype.STRING),
    Column("vin", Group.IDENTITY, Dtype.STRING, required=False),
    Column("lat", Group.PLACE, Dtype.FLOAT64, "deg", -90.0, 90.0, required=False),
    Column("lon", Group.PLACE, Dtype.FLOAT64, "deg", -180.0, 180.0, required=False),
    Column("scene_id", Group.MOTION, Dtype.STRING),
    Column("track_id", Group.MOTION, Dtype.INT32, "", 0.0),
    Column("t", Group.MOTION, Dtype.FLOAT64, "s", 0.0, 86_400.0),
    Column("x", Group.MOTION, Dtype.FLOAT32, "m", -1e6, 1e6),
    Column("y", Group.MOTION, Dtype.FLOAT32, "m", -1e6, 1e6),
    Column("vx", Group.MOTION, Dtype.FLOAT32, "m/s", -100.0, 100.0),
    Column("vy", Group.MOTION, Dtype.FLOAT32, "m/s", -100.0, 100.0),
    Column("heading", Group.MOTION, Dtype.FLOAT32, "rad", -6.3, 6.3),
    Column("length", Group.MOTION, Dtype.FLOAT32, "m", 0.0, 40.0, required=False),
    Column("width", Group.MOTION, Dtype.FLOAT32, "m", 0.0, 10.0, required=False),
    Column("type", Group.MOTION, Dtype.STRING, values=ROAD_USER_TYPES),
    Column("road_type", Group.MOTION, Dtype.STRING, values=ROAD_TYPES),
    Column("engaged", Group.MOTION, Dtype.INT32, "", 0.0, 1.0, required=False),
)

PSEUDONYM = Column("vehicle_pseudonym", Group.MOTION, Dtype.STRING)
"""Added to the motion group at ingest: a keyed hash of `vehicle`, made by the zone's border, so that compute can tell
vehicles apart (the privacy unit) without an identity."""
