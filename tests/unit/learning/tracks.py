"""Drives whose future is known in closed form: every road user goes round a circle or straight on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

STEP_S = 0.2
SCHEMA = pa.schema(
    [
        ("vehicle_pseudonym", pa.string()),
        ("scene_id", pa.string()),
        ("track_id", pa.int32()),
        ("t", pa.float64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("vx", pa.float32()),
        ("vy", pa.float32()),
        ("heading", pa.float32()),
        ("length", pa.float32()),
        ("width", pa.float32()),
        ("type", pa.string()),
        ("road_type", pa.string()),
    ]
)


@dataclass(frozen=True)
class Mover:
    """Speed m/s, turn rate rad/s, where it starts (m, rad)."""

    speed: float = 10.0
    turn_rate: float = 0.0
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0

    def at(self, t: float) -> tuple[float, float, float]:
        """Position and heading at t."""
        heading = self.heading + self.turn_rate * t
        if abs(self.turn_rate) < 1e-6:
            along = self.speed * t
            return self.x + along * np.cos(heading), self.y + along * np.sin(heading), heading
        radius = self.speed / self.turn_rate
        x = self.x + radius * (np.sin(heading) - np.sin(self.heading))
        return x, self.y - radius * (np.cos(heading) - np.cos(self.heading)), heading


def drive(
    *movers: Mover,
    vehicle: str = "v1",
    scene: str = "s1",
    samples: int = 26,
    missing: tuple[int, ...] = (),
    road_type: str = "arterial",
) -> pa.Table:
    """One drive: the first mover is the ego, the rest are what it saw; samples in `missing` lack the ego."""
    rows = []
    for k in range(samples):
        for track, mover in enumerate(movers):
            if track == 0 and k in missing:
                continue
            x, y, heading = mover.at(k * STEP_S)
            wrapped = (heading + np.pi) % (2 * np.pi) - np.pi
            rows.append(
                {
                    "vehicle_pseudonym": vehicle,
                    "scene_id": scene,
                    "track_id": track,
                    "t": k * STEP_S,
                    "x": x,
                    "y": y,
                    "vx": mover.speed * np.cos(heading),
                    "vy": mover.speed * np.sin(heading),
                    "heading": wrapped,
                    "type": "car",
                    "road_type": road_type,
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def circling_fleet(vehicles: int, samples: int, seed: int) -> pa.Table:
    """Vehicles that each go round circles of their own, one neighbour ahead of each."""
    generator = np.random.default_rng(seed)
    drives = []
    for number in range(vehicles):
        for part in range(2):
            ego = Mover(
                speed=generator.uniform(3, 15), turn_rate=generator.uniform(-0.5, 0.5), heading=generator.uniform(-3, 3)
            )
            name = f"v{number:03d}"
            drives.append(drive(ego, replace(ego, x=8.0), vehicle=name, scene=f"{name}-{part}", samples=samples))
    return pa.concat_tables(drives)
