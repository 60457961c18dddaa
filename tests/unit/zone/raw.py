"""Small raw tables to begin from."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def drive(scene: str, vehicle: str = "car-1", *, instants: int = 4, others: int = 1, **changed: Any) -> pa.Table:
    """One drive at 5 Hz: the ego, `others` beside it. `changed` replaces whole columns."""
    rows = [(0.2 * i, track) for i in range(instants) for track in range(others + 1)]
    count = len(rows)
    columns: dict[str, Any] = {
        "vehicle": [vehicle] * count,
        "vin": [f"VIN-of-{vehicle}"] * count,
        "lat": [31.2] * count,
        "lon": [121.5] * count,
        "scene_id": [scene] * count,
        "track_id": [track for _, track in rows],
        "t": [t for t, _ in rows],
        "x": [t * 5 + track * 10 for t, track in rows],
        "y": [0.0] * count,
        "vx": [5.0] * count,
        "vy": [0.0] * count,
        "heading": [0.0] * count,
        "length": [4.5] * count,
        "width": [1.8] * count,
        "type": ["car"] * count,
        "road_type": ["arterial"] * count,
        "engaged": [1] * count,
    }
    columns.update(changed)
    return pa.table({name: values for name, values in columns.items() if values is not None})


def with_value(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    """Replace one value."""
    values = table.column(column).to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values))
