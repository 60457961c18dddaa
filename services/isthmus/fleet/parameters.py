"""The words in which a fleet is described: roads, junctions, drivers, sensors.

Rules: the fleets differ in nothing but these parameters; what other modules fix (step, warm-up, where newcomers
appear) is the same for both and says nothing of a country. The values stand in `shanghai`, `texas` and, for what both
have in common, here.

Sources of values, by letter in the comments:
  T  the calibration table: headways, moving speeds, braking and two-wheeler shares measured on Chinese and US tracks,
     and the two IDM parameter sets (Shanghai; US freeway).
  I  Treiber, Hennecke, Helbing (2000), Phys. Rev. E 62, 1805: the Intelligent Driver Model and its usual values.
  H  Highway Capacity Manual (2010) ch. 21 and NCHRP 672: the order of roundabout sizes and critical gaps.
  A  AASHTO Green Book (2018) and CJJ 37-2012: the order of lane widths, corner and ramp radii, speeds.
  Y  ITE yellow interval practice: a driver stops for a light if 3.0 m/s2 is enough.
  P  a plausible value without a source, as is every value without a letter; chosen before anything was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

JUNCTIONS = 4
"""Junctions laid out along each drive."""


@dataclass(frozen=True, slots=True)
class Range:
    """A uniform distribution from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Idm:
    """The Intelligent Driver Model's parameters: v0 m/s, T s, a m/s2, b m/s2, delta, s0 m."""

    desired_speed: float
    time_gap: float
    acceleration: float
    deceleration: float
    exponent: float
    jam_gap: float


@dataclass(frozen=True, slots=True)
class Junction:
    """How a road type's junctions are built and run.

    Attributes:
        turns: how often the ego turns left, goes straight on, turns right.
        radius_left: radius of a left turn, m; on a roundabout, of the ring.
        radius_right: radius of a right turn, m; of a ramp; of a roundabout's entry and exit curves.
        turn_angle: how far a turn turns, rad (a quarter, except on ramps).
        transition: length over which steering goes from one curvature to the next, m.
        cycle: length of a signal's cycle, s.
        green: share of the cycle that is green along the ego's road.
        critical_gap: time to the next circulating vehicle that a driver at a yield line accepts, s.
        stop_deceleration: a driver passes a light that just closed if stopping would take more than this, m/s2.
        through: share of the traffic in the ego's lane that goes straight on where the ego turns.
        turning: share of that traffic that turns off where the ego goes straight on.
    """

    turns: tuple[float, float, float]
    radius_left: Range
    radius_right: Range
    turn_angle: Range
    transition: float
    cycle: Range
    green: Range
    critical_gap: float
    stop_deceleration: float
    through: float
    turning: float


@dataclass(frozen=True, slots=True)
class Road:
    """One road type of one country.

    Attributes:
        share: how often a drive is on this road type.
        lane_width: m.
        lanes: fewest and most lanes per direction.
        median: between the innermost lanes of the two directions, m.
        block: distance between junctions, m.
        bend_radius: smallest radius of the bends between junctions, m.
        speed: what drivers take as the road's speed, m/s.
        lateral_acceleration: what they accept in a curve, m/s2; it sets the speed of a turn.
        curve_deceleration: how they slow down towards it, m/s2.
        idm: car following and free acceleration.
        users: fewest and most road users kept around the ego.
        two_wheelers: expected share of them that are two-wheelers, drawn per drive.
        pedestrians: share that are pedestrians.
        heavy: share that are trucks and buses.
        placement: weights of where they appear: ahead of the ego, behind it, oncoming, merging, crossing.
        junction: how its junctions are built and run.
    """

    share: float
    lane_width: float
    lanes: tuple[int, int]
    median: float
    block: Range
    bend_radius: float
    speed: Range
    lateral_acceleration: float
    curve_deceleration: float
    idm: Idm
    users: tuple[int, int]
    two_wheelers: Range
    pedestrians: float
    heavy: float
    placement: tuple[float, float, float, float, float]
    junction: Junction


@dataclass(frozen=True, slots=True)
class Drivers:
    """How road users differ from each other, and how they waver.

    Attributes:
        time_gap_spread: standard deviation of the logarithm of T between drivers.
        speed_spread: the same of the speed they take on a given road.
        speed_waver: standard deviation of a driver's wanted speed over time, relative.
        waver_time: correlation time of that and of the lateral wander, s.
        wander: lateral wander of a car within its lane, m.
        two_wheeler_wander: the same of a two-wheeler.
        two_wheeler_speed: a two-wheeler's own top speed, m/s.
        two_wheeler: IDM of two-wheelers; their desired speed is `two_wheeler_speed`.
        pedestrian_speed: m/s.
        heavy_acceleration: a truck's or bus's acceleration relative to a car's.
        lane_changes: chance that a driver who is held up uses an opportunity to change lane; a driver looks for one
            about every 20 s, and takes it a tenth as often when not held up.
        hardest_braking: nobody brakes harder, m/s2.
        reaction: lag with which acceleration follows what is wanted, s.
        yellow: how long before its red a light counts as closed, s.
        steering: natural frequency with which lateral offsets are corrected, 1/s (critically damped).
        slip: lateral speed relative to forward speed, at most.
    """

    time_gap_spread: float
    speed_spread: float
    speed_waver: float
    waver_time: float
    wander: float
    two_wheeler_wander: float
    two_wheeler_speed: Range
    two_wheeler: Idm
    pedestrian_speed: Range
    heavy_acceleration: float
    lane_changes: float
    hardest_braking: float
    reaction: float
    yellow: float
    steering: float
    slip: float


@dataclass(frozen=True, slots=True)
class Size:
    """Length and width of a kind of road user, m."""

    length: Range
    width: Range


@dataclass(frozen=True, slots=True)
class Sensors:
    """Measurement errors, as standard deviations.

    Attributes:
        view: range within which road users are recorded, m.
        most: how many of them at most, the nearest first.
        position: of another's position, m, at no distance.
        position_growth: what is added per metre of distance.
        velocity: of another's velocity components, m/s.
        heading: of another's heading, rad.
        gps_drift: slow error of the ego's place, m per axis.
        gps_drift_time: its correlation time, s.
        gps_jitter: fast error of the ego's place, m per axis.
    """

    view: float
    most: int
    position: float
    position_growth: float
    velocity: float
    heading: float
    gps_drift: float
    gps_drift_time: float
    gps_jitter: float


@dataclass(frozen=True, slots=True)
class FleetParameters:
    """One fleet: where it drives, on which roads, among whom, and what it measures.

    Attributes:
        wmi: first three characters of its VINs (made up).
        model_years: VIN codes of its model years.
        origins: latitude and longitude, deg, of the places around which it drives.
        spread: how far from them, deg.
        roads: by road type, in the order of `contracts.raw_table.ROAD_TYPES`.
        drivers: how road users differ.
        sizes: of road users, in the order of `contracts.raw_table.ROAD_USER_TYPES`.
        sensors: measurement errors.
    """

    wmi: str
    model_years: str
    origins: tuple[tuple[float, float], ...]
    spread: float
    roads: tuple[Road, Road, Road, Road]
    drivers: Drivers
    sizes: tuple[Size, ...]
    sensors: Sensors


SIZES = (  # P: car, truck, bus, two-wheeler, pedestrian
    Size(Range(4.2, 5.0), Range(1.75, 1.95)),
    Size(Range(7.5, 12.0), Range(2.3, 2.5)),
    Size(Range(10.5, 12.0), Range(2.5, 2.55)),
    Size(Range(1.7, 2.1), Range(0.6, 0.9)),
    Size(Range(0.5, 0.7), Range(0.5, 0.7)),
)
QUARTER = Range(1.5708, 1.5708)
NONE = Range(0.0, 0.0)

SENSORS = Sensors(  # P: a fused lidar and camera tracker, a code-phase GNSS receiver
    view=60.0,
    most=12,
    position=0.08,
    position_growth=0.003,
    velocity=0.15,
    heading=0.02,
    gps_drift=0.7,
    gps_drift_time=20.0,
    gps_jitter=0.1,
)
