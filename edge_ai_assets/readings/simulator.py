"""A simulator of pump stations for the bundled use case `pump-station`. No real plant is behind it.

Raw columns as a plant would write them. A station has two pumps that are alike and take turns, shift by
shift: one runs, the other stands by. Two kinds of fault come as episodes: bearing wear (temperature and
vibration creep up) and cavitation (flow and pressure fluctuate and sag). Where the files go is `replay`'s
business.
"""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd

ROWS = 120
"""Rows in a shift of eight hours: one every four minutes."""
START = np.datetime64("2026-03-01T00:00:00", "s")
PRESSURE, FLOW = "Discharge pressure [bar]", "Flow [m³/h]"
TEMPERATURE, VIBRATION = "Bearing temperature [°C]", "Vibration: RMS [mm/s]"
CURRENT, PUMP = "Motor current [A]", "Pump type"
DECIMALS = {PRESSURE: 3, FLOW: 2, TEMPERATURE: 2, VIBRATION: 3, CURRENT: 2}
PUMPS = ("P-101", "P-102")
FAULTY_SHIFTS = 0.26
GOLDEN = (5**0.5 - 1) / 2


def simulate(
    site: str, *, seed: int, shifts: int, first_shift: int = 0, drifted: bool = False
) -> pd.DataFrame:
    """Simulated readings of one station.

    Args:
        site: name of the station; it decides on the pump and small offsets, so that stations differ.
        seed: the same seed, site, shift and `drifted` give the same rows, whatever else is asked for.
        shifts: how many shifts, each of `ROWS` rows.
        first_shift: number of the first one, counted from 2026-03-01, three a day.
        drifted: after a conversion of the plant (larger impeller, higher load): most readings lie more than a
            standard deviation from where they were, and faults look different.

    Returns:
        station, shift, pump, time, the use case's six features and fault (0 or 1), shape (shifts * ROWS, 11).
    """
    identity = zlib.crc32(site.encode())
    numbers = np.arange(first_shift, first_shift + shifts)
    generators = [
        np.random.default_rng([seed, identity, number, int(drifted)]) for number in numbers.tolist()
    ]
    noise = np.stack([rng.standard_normal((6, ROWS)) for rng in generators], axis=1)  # (6, shifts, ROWS)
    plan = np.stack([rng.random(8) for rng in generators], axis=1)  # (8, shifts)
    # Spread evenly over the shifts instead of drawn, so that even a handful of shifts holds a faulty one.
    plan[0] = (numbers * GOLDEN + np.random.default_rng([seed, identity, 1]).random()) % 1
    wear, cavitation = _episodes(plan)
    day = (numbers[:, None] * 8 + np.arange(ROWS) * 8 / ROWS) / 24
    yearly, daily = np.sin(2 * np.pi * (day - 50) / 365.25), np.sin(2 * np.pi * (day - 0.4))
    load = _load(plan) + 0.05 * daily + 0.02 * _smooth(noise[0], 0.9)
    trait = np.random.default_rng([seed, identity]).uniform(-1, 1, 5)

    flow = (152 + 4 * trait[0]) * load + 2.0 * _smooth(noise[1], 0.7)
    pressure = 6.4 + 0.2 * trait[1] + 1.9 * load**2 + 0.06 * _smooth(noise[2], 0.7)
    temperature = 46 + 2 * trait[2] + 9 * load + 3 * yearly + 1.5 * daily + 0.5 * _smooth(noise[3], 0.95)
    vibration = 1.9 + 0.15 * trait[3] + 0.7 * load + 0.12 * _smooth(noise[4], 0.5)
    current = 31 + trait[4] + 24 * load + 0.6 * _smooth(noise[5], 0.6)
    # White noise of its own for the fluctuations of cavitation.
    surge = np.stack([rng.standard_normal((2, ROWS)) for rng in generators], axis=1)
    if not drifted:
        temperature += 9 * wear
        vibration += 1.6 * wear + 0.5 * cavitation
        flow += cavitation * (8 * surge[0] - 6)
        pressure += cavitation * (0.4 * surge[1] - 0.3)
    else:
        # The new impeller runs hotter and rougher when all is well than the old one did when it was worn.
        flow, pressure = 1.15 * flow + 22, 1.1 * pressure + 1.2
        temperature, vibration, current = temperature + 9, 1.1 * vibration + 2.1, 1.15 * current + 6
        temperature += 5 * wear
        vibration -= 1.5 * wear
        current += 9 * wear + cavitation * (6 * surge[0] + 3)
        pressure += cavitation * (1.1 * surge[1] + 0.9)
    columns = {
        PRESSURE: pressure,
        FLOW: flow,
        TEMPERATURE: temperature,
        VIBRATION: vibration,
        CURRENT: current,
    }
    seconds = numbers[:, None] * 8 * 3600 + np.arange(ROWS) * (8 * 3600 // ROWS)
    days = START.astype("datetime64[D]") + numbers // 3
    names = [f"{date}-{'abc'[number % 3]}" for date, number in zip(days, numbers.tolist(), strict=True)]
    return pd.DataFrame(
        {
            "station": site,
            "shift": np.repeat(np.array(names, dtype=object), ROWS),
            "pump": np.repeat(np.array(PUMPS, dtype=object)[numbers % len(PUMPS)], ROWS),
            "time": (START + seconds.ravel()).astype("datetime64[us]"),
            **{name: values.ravel().clip(0).round(DECIMALS[name]) for name, values in columns.items()},
            PUMP: ("centrifugal", "screw")[identity % 2],
            "fault": ((wear + cavitation) > 0).astype(np.int64).ravel(),
        }
    ).astype({"shift": "str", "pump": "str"})


def dirty(frame: pd.DataFrame, *, seed: int, share: float = 0.01) -> pd.DataFrame:
    """The same simulated rows as text, `share` of them with the dirt that real files have.

    Five kinds in equal parts: a spike out of range, `#VALUE!`, an empty cell, a broken time, a row written
    twice.

    Returns:
        strings, the columns of `frame`; as many rows more as were written twice.
    """
    rng = np.random.default_rng([seed, len(frame)])
    table = frame.astype("str").astype(object).reset_index(drop=True)
    rows = rng.choice(len(frame), size=round(share * len(frame)), replace=False)
    spiked, excel, empty, untimed, doubled = np.array_split(rows, 5)
    sensors = list(DECIMALS)
    for chosen, value in ((spiked, "99999.9"), (excel, "#VALUE!"), (empty, "")):
        for row, column in zip(chosen, rng.integers(len(sensors), size=len(chosen)), strict=True):
            table.loc[row, sensors[column]] = value
    table.loc[untimed, "time"] = "2026-13-45 99:00:00"
    order = np.sort(np.concatenate([np.arange(len(frame)), doubled]))
    return table.iloc[order].reset_index(drop=True).astype("str")


def _episodes(plan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength of wear and of cavitation, 0 to 1.2, shape (shifts, ROWS): at most one episode a shift."""
    faulty, is_wear = plan[0] < FAULTY_SHIFTS, plan[1] < 0.5
    start = (10 + plan[2] * (ROWS - 80))[:, None].astype(int)
    length = (40 + plan[3] * 25)[:, None].astype(int)
    step = np.arange(ROWS) - start
    inside = faulty[:, None] & (step >= 0) & (step < length)
    strength = (0.8 + 0.4 * plan[4])[:, None]
    creep = np.where(inside, strength * np.minimum(1, 0.35 + step / 10), 0)
    whole = np.where(inside, strength, 0)
    return creep * is_wear[:, None], whole * ~is_wear[:, None]


def _load(plan: np.ndarray) -> np.ndarray:
    """Load as a share of the rated one, shape (shifts, ROWS): changed once in a shift, over ten rows."""
    before, after = (0.65 + 0.4 * plan[5])[:, None], (0.65 + 0.4 * plan[6])[:, None]
    turn = (15 + plan[7] * 90)[:, None]
    return np.asarray(before + (after - before) * np.clip((np.arange(ROWS) - turn) / 10, 0, 1))


def _smooth(noise: np.ndarray, keep: float) -> np.ndarray:
    """Autocorrelated noise of unit variance from white noise, shape (shifts, ROWS)."""
    smooth = np.empty_like(noise)
    smooth[:, 0] = noise[:, 0]
    for row in range(1, noise.shape[1]):
        smooth[:, row] = keep * smooth[:, row - 1] + np.sqrt(1 - keep**2) * noise[:, row]
    return smooth
