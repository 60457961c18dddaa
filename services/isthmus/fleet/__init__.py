"""The simulated fleets: what the two zones have to learn from when no recorded drives are at hand.

Rules: everything follows from frozen parameters (`parameters`), which have a digest, and a seed. Tables are exactly
`contracts.raw_table.RAW_COLUMNS`. No real vehicle, place of a person or recording is in them.

    parameters, shanghai, texas, frozen     all numbers, with sources and digests
    scenes, layout, network, paths          what is drawn per drive; roads as tables of curves
    users, following, traffic, arrivals     who drives there, and how
    drives, recording, place, vin           batches and seeds; what the vehicle records
    handovers                               when the driving function hands back to the driver
    statistics                              figures for the calibration table
"""

from isthmus.fleet.drives import simulate
from isthmus.fleet.frozen import PARAMETERS, parameters_digest
from isthmus.fleet.parameters import FleetParameters
from isthmus.fleet.recording import SCHEMA
from isthmus.fleet.statistics import FleetStatistics, RoadStatistics, statistics

__all__ = [
    "PARAMETERS",
    "SCHEMA",
    "FleetParameters",
    "FleetStatistics",
    "RoadStatistics",
    "parameters_digest",
    "simulate",
    "statistics",
]
