"""The Chinese fleet: `cn-shanghai`. Letters in comments are the sources of `parameters`."""

from __future__ import annotations

from isthmus.fleet.parameters import NONE, QUARTER, SENSORS, SIZES, Drivers, FleetParameters, Idm, Junction, Range, Road

SHANGHAI_IDM = Idm(32.05, 0.74, 1.19, 0.88, 1.0, 2.95)  # T
CHINA_STREET_IDM = Idm(15.0, 0.74, 1.4, 1.3, 4.0, 2.0)  # I; T of the Shanghai set

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
