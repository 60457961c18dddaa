"""All numbers of the two simulated fleets, in one place.

Rules: the fleets differ in nothing but these numbers; what other modules fix (step, warm-up, where newcomers appear) is
the same for both and says nothing of a country. A site's parameters have a digest, which `docs/explanation/fleet.md`
repeats; they were set from the calibration table of that page alone.

Sources, by letter in the comments:
  T  the calibration table: headways, moving speeds, braking and two-wheeler shares measured on Chinese and US tracks,
     and the two IDM parameter sets (Shanghai; US freeway).
  I  Treiber, Hennecke, Helbing (2000), Phys. Rev. E 62, 1805: the Intelligent Driver Model and its usual values.
  H  Highway Capacity Manual (2010) ch. 21 and NCHRP 672: roundabout sizes and critical gaps.
  A  AASHTO Green Book (2018) and CJJ 37-2012: lane widths, corner and ramp radii, design speeds.
  Y  ITE yellow interval practice: a driver stops for a light if 3.0 m/s2 is enough.
  P  a plausible value; no source. Chosen before anything was trained.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

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
SHANGHAI_IDM = Idm(32.05, 0.74, 1.19, 0.88, 1.0, 2.95)  # T
CHINA_STREET_IDM = Idm(15.0, 0.74, 1.4, 1.3, 4.0, 2.0)  # I; T of the Shanghai set
US_FREEWAY_IDM = Idm(35.84, 1.05, 0.86, 0.20, 1.47, 1.40)  # T
US_STREET_IDM = Idm(20.0, 2.1, 1.6, 1.9, 4.0, 2.0)  # I, with T from the headways of table T

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

CHINA = FleetParameters(
    wmi="C0C",
    model_years="PRST",
    origins=((31.2304, 121.4737), (31.1443, 121.8083), (31.3747, 121.2650)),
    spread=0.06,
    roads=(
        Road(  # urban intersection
            share=0.45,  # P
            lane_width=3.25,  # A (CJJ 37)
            lanes=(1, 3),
            median=0.5,
            block=Range(85.0, 170.0),  # P
            bend_radius=400.0,
            speed=Range(7.0, 10.5),  # T: moving speeds
            lateral_acceleration=1.3,  # P: turns taken slowly among two-wheelers
            curve_deceleration=1.0,
            idm=CHINA_STREET_IDM,
            users=(10, 17),
            two_wheelers=Range(0.10, 0.40),  # T
            pedestrians=0.06,
            heavy=0.06,
            placement=(0.34, 0.10, 0.20, 0.18, 0.18),
            junction=Junction(
                turns=(0.28, 0.44, 0.28),
                radius_left=Range(15.0, 24.0),  # A: wide junctions
                radius_right=Range(12.0, 19.0),
                turn_angle=QUARTER,
                transition=6.0,
                cycle=Range(50.0, 80.0),
                green=Range(0.45, 0.6),
                critical_gap=3.2,
                stop_deceleration=1.9,
                through=0.5,
                turning=0.3,
            ),
        ),
        Road(  # roundabout
            share=0.08,
            lane_width=3.5,
            lanes=(1, 1),
            median=2.0,
            block=Range(130.0, 220.0),
            bend_radius=400.0,
            speed=Range(8.0, 11.0),
            lateral_acceleration=1.4,
            curve_deceleration=1.0,
            idm=CHINA_STREET_IDM,
            users=(7, 14),
            two_wheelers=Range(0.08, 0.28),
            pedestrians=0.03,
            heavy=0.06,
            placement=(0.36, 0.10, 0.0, 0.30, 0.24),
            junction=Junction(
                turns=(0.3, 0.45, 0.25),
                radius_left=Range(19.0, 28.0),  # P: Chinese rings are large
                radius_right=Range(15.0, 19.0),
                turn_angle=QUARTER,
                transition=6.0,
                cycle=NONE,
                green=NONE,
                critical_gap=3.2,  # P: forceful entry
                stop_deceleration=2.2,
                through=0.5,
                turning=0.4,
            ),
        ),
        Road(  # arterial
            share=0.30,
            lane_width=3.5,  # A
            lanes=(2, 4),
            median=1.5,
            block=Range(260.0, 480.0),
            bend_radius=350.0,
            speed=Range(12.0, 16.5),  # A: 50 to 60 km/h
            lateral_acceleration=1.5,
            curve_deceleration=1.0,
            idm=SHANGHAI_IDM,
            users=(9, 17),
            two_wheelers=Range(0.05, 0.3),
            pedestrians=0.02,
            heavy=0.10,
            placement=(0.46, 0.14, 0.20, 0.10, 0.10),
            junction=Junction(
                turns=(0.12, 0.76, 0.12),
                radius_left=Range(18.0, 28.0),
                radius_right=Range(14.0, 22.0),
                turn_angle=QUARTER,
                transition=8.0,
                cycle=Range(60.0, 100.0),
                green=Range(0.5, 0.65),
                critical_gap=3.2,
                stop_deceleration=1.9,
                through=0.6,
                turning=0.2,
            ),
        ),
        Road(  # freeway: urban expressways, dense
            share=0.17,
            lane_width=3.75,  # A
            lanes=(2, 4),
            median=4.0,
            block=Range(500.0, 900.0),
            bend_radius=350.0,
            speed=Range(15.0, 24.0),  # A: 80 km/h and less in traffic
            lateral_acceleration=2.0,
            curve_deceleration=0.9,
            idm=SHANGHAI_IDM,
            users=(10, 17),
            two_wheelers=NONE,
            pedestrians=0.0,
            heavy=0.14,
            placement=(0.55, 0.35, 0.10, 0.0, 0.0),
            junction=Junction(
                turns=(0.0, 0.8, 0.2),
                radius_left=Range(60.0, 60.0),
                radius_right=Range(45.0, 70.0),  # A: tight urban ramps
                turn_angle=Range(0.8, 3.6),
                transition=40.0,
                cycle=NONE,
                green=NONE,
                critical_gap=3.2,
                stop_deceleration=1.9,
                through=0.8,
                turning=0.0,
            ),
        ),
    ),
    drivers=Drivers(
        time_gap_spread=0.50,  # T: 14 % of headways below 1 s
        speed_spread=0.10,
        speed_waver=0.06,
        waver_time=6.0,
        wander=0.18,
        two_wheeler_wander=0.55,
        two_wheeler_speed=Range(3.8, 7.0),  # P: bicycles and electric bicycles
        two_wheeler=Idm(7.0, 0.5, 1.0, 1.2, 2.0, 0.8),
        pedestrian_speed=Range(0.9, 1.6),
        heavy_acceleration=0.65,
        lane_changes=0.9,
        hardest_braking=6.5,  # P: dry road, before any emergency system
        reaction=0.3,
        yellow=3.0,
        steering=0.8,
        slip=0.22,
    ),
    sizes=SIZES,
    sensors=SENSORS,
)

TEXAS = FleetParameters(
    wmi="C0U",
    model_years="PRST",
    origins=((30.2672, -97.7431), (32.7767, -96.7970), (29.7604, -95.3698)),
    spread=0.12,
    roads=(
        Road(  # urban intersection
            share=0.25,  # P
            lane_width=3.66,  # A: 12 ft
            lanes=(1, 2),
            median=1.0,
            block=Range(90.0, 150.0),  # P: short grid blocks
            bend_radius=900.0,
            speed=Range(9.5, 13.5),  # T: moving speeds; 25 to 30 mph
            lateral_acceleration=2.5,  # P: brisk turns
            curve_deceleration=1.9,
            idm=US_STREET_IDM,
            users=(5, 12),
            two_wheelers=Range(0.0, 0.04),
            pedestrians=0.06,
            heavy=0.06,
            placement=(0.38, 0.10, 0.22, 0.15, 0.15),
            junction=Junction(
                turns=(0.28, 0.44, 0.28),
                radius_left=Range(11.0, 16.0),
                radius_right=Range(8.0, 11.0),  # A: 25 to 35 ft corners
                turn_angle=QUARTER,
                transition=5.0,
                cycle=Range(50.0, 80.0),
                green=Range(0.45, 0.6),
                critical_gap=4.5,
                stop_deceleration=3.0,  # Y
                through=0.5,
                turning=0.3,
            ),
        ),
        Road(  # roundabout: small, single lane
            share=0.05,
            lane_width=3.66,
            lanes=(1, 1),
            median=2.0,
            block=Range(160.0, 280.0),
            bend_radius=600.0,
            speed=Range(10.0, 13.5),
            lateral_acceleration=2.4,
            curve_deceleration=1.6,
            idm=US_STREET_IDM,
            users=(5, 11),
            two_wheelers=Range(0.0, 0.02),
            pedestrians=0.02,
            heavy=0.06,
            placement=(0.40, 0.10, 0.0, 0.28, 0.22),
            junction=Junction(
                turns=(0.3, 0.45, 0.25),
                radius_left=Range(13.0, 18.0),  # H: inscribed diameters of 30 to 45 m
                radius_right=Range(12.0, 15.0),
                turn_angle=QUARTER,
                transition=5.0,
                cycle=NONE,
                green=NONE,
                critical_gap=4.5,  # H
                stop_deceleration=3.0,
                through=0.5,
                turning=0.4,
            ),
        ),
        Road(  # arterial
            share=0.35,
            lane_width=3.66,
            lanes=(2, 3),
            median=4.0,
            block=Range(300.0, 550.0),
            bend_radius=500.0,
            speed=Range(16.0, 21.0),  # A: 35 to 45 mph
            lateral_acceleration=2.6,
            curve_deceleration=1.7,
            idm=US_STREET_IDM,
            users=(5, 13),
            two_wheelers=Range(0.0, 0.03),
            pedestrians=0.01,
            heavy=0.10,
            placement=(0.46, 0.16, 0.20, 0.09, 0.09),
            junction=Junction(
                turns=(0.14, 0.68, 0.18),
                radius_left=Range(14.0, 20.0),
                radius_right=Range(10.0, 15.0),
                turn_angle=QUARTER,
                transition=7.0,
                cycle=Range(70.0, 110.0),
                green=Range(0.5, 0.65),
                critical_gap=4.5,
                stop_deceleration=3.0,  # Y
                through=0.6,
                turning=0.2,
            ),
        ),
        Road(  # freeway
            share=0.35,
            lane_width=3.66,
            lanes=(2, 4),
            median=8.0,
            block=Range(700.0, 1300.0),
            bend_radius=700.0,
            speed=Range(25.0, 32.5),  # A: 60 to 75 mph
            lateral_acceleration=3.0,
            curve_deceleration=1.3,
            idm=US_FREEWAY_IDM,
            users=(6, 14),
            two_wheelers=NONE,
            pedestrians=0.0,
            heavy=0.14,
            placement=(0.55, 0.35, 0.10, 0.0, 0.0),
            junction=Junction(
                turns=(0.0, 0.8, 0.2),
                radius_left=Range(90.0, 90.0),
                radius_right=Range(70.0, 130.0),  # A: loop and direct ramps
                turn_angle=Range(0.6, 3.0),
                transition=50.0,
                cycle=NONE,
                green=NONE,
                critical_gap=4.5,
                stop_deceleration=3.0,
                through=0.8,
                turning=0.0,
            ),
        ),
    ),
    drivers=Drivers(
        time_gap_spread=0.58,  # T: 3 % of headways below 1 s
        speed_spread=0.08,
        speed_waver=0.05,
        waver_time=6.0,
        wander=0.18,
        two_wheeler_wander=0.40,
        two_wheeler_speed=Range(4.5, 8.0),
        two_wheeler=Idm(7.0, 1.0, 1.0, 1.5, 2.0, 1.0),
        pedestrian_speed=Range(1.0, 1.7),
        heavy_acceleration=0.65,
        lane_changes=0.7,
        hardest_braking=6.5,
        reaction=0.3,
        yellow=3.0,
        steering=0.8,
        slip=0.22,
    ),
    sizes=SIZES,
    sensors=SENSORS,
)

PARAMETERS: Mapping[str, FleetParameters] = MappingProxyType({"cn-shanghai": CHINA, "us-texas": TEXAS})
"""The frozen parameters by site id."""


def parameters_of(site: str) -> FleetParameters:
    """Return a site's parameters.

    Raises:
        Refusal: `INPUT_INVALID` if no fleet is simulated for `site`.
    """
    if site not in PARAMETERS:
        raise Refusal(
            Code.INPUT_INVALID, f"No fleet is simulated for {site!r}.", remedy=f"Use one of {', '.join(PARAMETERS)}."
        )
    return PARAMETERS[site]


def parameters_digest(site: str) -> Digest:
    """Return the digest of a site's parameters: of sorted, compact JSON with floats written as Python's `repr`."""
    plain = _exact(dataclasses.asdict(parameters_of(site)))
    return Digest.of(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def _exact(value: Any) -> Any:
    """Replace floats by their shortest exact text, all the way down."""
    match value:
        case float():
            return repr(value)
        case dict():
            return {key: _exact(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_exact(inner) for inner in value]
        case _:
            return value
