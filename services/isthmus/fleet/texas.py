"""The US fleet: `us-texas`. Letters in comments are the sources of `parameters`."""

from __future__ import annotations

from isthmus.fleet.parameters import NONE, QUARTER, SENSORS, SIZES, Drivers, FleetParameters, Idm, Junction, Range, Road

US_FREEWAY_IDM = Idm(35.84, 1.05, 0.86, 0.20, 1.47, 1.40)  # T
US_STREET_IDM = Idm(20.0, 2.1, 1.6, 1.9, 4.0, 2.0)  # I, with T from the headways of table T

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
