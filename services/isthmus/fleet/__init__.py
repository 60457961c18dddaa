"""The simulated fleets: what the two zones have to learn from when no recorded drives are at hand.

Rules: everything follows from frozen parameters (`parameters`), which have a digest, and a seed. Tables are exactly
`contracts.raw_table.RAW_COLUMNS`. No real vehicle, place of a person or recording is in them.

    parameters    all numbers, with sources          network, layout, paths    roads as tables of curves
    scenes        what is drawn per drive            users, following, traffic, arrivals    who drives there, and how
    drives        batches, seeds                     recording, place, vin     what the vehicle records
    statistics    figures for the calibration table
"""

from isthmus.fleet.drives import simulate
from isthmus.fleet.parameters import PARAMETERS, FleetParameters, parameters_digest
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
