"""Small files that are as dirty as some well-known public data sets. Their numbers are made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def _comma(value: float) -> str:
    return f"{value:.1f}".replace(".", ",")


def air_quality(path: Path, rows: int = 1500) -> Path:
    """Like UCI Air Quality: `;`, decimal commas, -200 for missing, time with dots, empty columns and rows."""
    rng = np.random.default_rng(1)
    times = pd.date_range("2004-03-10 18:00", periods=rows, freq="h")
    lines = ["Date;Time;CO(GT);PT08.S1(CO);NMHC(GT);T;RH;AH;;"]
    for row, time in enumerate(times):
        co = -200 if rng.random() < 0.1 else round(float(rng.gamma(2, 1)), 1)
        nmhc = -200 if row > 300 else int(rng.integers(7, 1189))
        temperature = -200 if rng.random() < 0.03 else 15 + 10 * np.sin(row / 24)
        shown = "-200" if co == -200 else _comma(co)
        cells = [f"{time:%d/%m/%Y}", f"{time:%H.%M.%S}", shown, str(int(rng.integers(700, 2000))), str(nmhc)]
        cells += [
            _comma(temperature),
            _comma(rng.uniform(10, 90)),
            f"0,{int(rng.integers(1000, 9999))}",
            "",
            "",
        ]
        lines.append(";".join(cells))
    lines += [";" * 9] * 20
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def household_power(path: Path, rows: int = 5000) -> Path:
    """Like UCI household power consumption: `;`, d/m/Y without zeros, '?' for missing, one row a minute."""
    rng = np.random.default_rng(2)
    times = pd.date_range("2006-12-16 17:24", periods=rows, freq="min")
    lines = ["Date;Time;Global_active_power;Voltage;Sub_metering_1;Sub_metering_3"]
    for time in times:
        cells = [f"{rng.gamma(2, 1):.3f}", f"{rng.normal(240, 3):.3f}", f"{rng.integers(0, 3)}.000", "17.000"]
        cells[3] = f"{rng.integers(0, 18)}.000"
        if rng.random() < 0.02:
            cells = ["?", "?", "?", ""]
        lines.append(";".join([f"{time.day}/{time.month}/{time.year}", f"{time:%H:%M:%S}", *cells]))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def beijing(path: Path, rows: int = 2000) -> Path:
    """Like UCI Beijing PM2.5: year, month, day and hour apart, a row number, NA, a category for the wind."""
    rng = np.random.default_rng(3)
    times = pd.date_range("2010-01-01", periods=rows, freq="h")
    lines = ["No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is"]
    for row, time in enumerate(times):
        pm = "NA" if row < 24 or rng.random() < 0.05 else str(int(rng.gamma(2, 50)))
        wind = rng.choice(["NW", "cv", "NE", "SE"])
        cells = [row + 1, time.year, time.month, time.day, time.hour, pm, int(rng.integers(-30, 20))]
        cells += [
            f"{rng.normal(10, 8):.1f}",
            int(rng.integers(990, 1040)),
            wind,
            f"{rng.gamma(1, 20):.2f}",
            0,
        ]
        lines.append(",".join(map(str, cells)))
    path.write_text("\r\n".join(lines) + "\r\n", "utf-8")
    return path


def bracketed(path: Path, rows: int = 1200) -> Path:
    """Names with spaces, brackets, colons, quotes and units; tabs; a byte order mark; several machines."""
    rng = np.random.default_rng(4)
    lines = ['Timestamp\tMachine ID\tFlow: main [m³/h]\tTemp, "inner" (°C)\t{x} #1\tAlarm?']
    for row in range(rows):
        for machine in ("press/1", "press/2"):
            time = pd.Timestamp("2024-03-01") + pd.Timedelta(minutes=15 * row)
            cells = [
                f"{time:%m/%d/%Y %I:%M %p}",
                machine,
                f"{rng.normal(50, 5):.3f}",
                f"{rng.normal(20, 2):.1e}",
            ]
            lines.append("\t".join([*cells, f"{rng.normal():.6f}", "yes" if row % 50 < 4 else "no"]))
    lines[0] = "\ufeff" + lines[0].replace('Temp, "inner" (°C)', '"Temp, ""inner"" (°C)"')
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def machine_status(path: Path, rows: int = 3000) -> Path:
    """Like the pump sensor data on Kaggle: an unnamed index, an empty column, a status of three values."""
    rng = np.random.default_rng(5)
    status = np.where(np.arange(rows) % 500 < 40, "RECOVERING", "NORMAL").astype(object)
    status[::1500] = "BROKEN"
    frame = pd.DataFrame(
        {
            "timestamp": pd.date_range("2018-04-01", periods=rows, freq="min").astype(str),
            "sensor_00": rng.normal(2.4, 0.1, rows).round(4),
            "sensor_15": np.nan,
            "sensor_50": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(200, 20, rows)),
            "machine_status": status,
        }
    )
    frame.to_csv(path)
    return path


def turbines(path: Path, rows: int = 400) -> Path:
    """Parquet with types of its own: zoned times, integers, booleans, a dictionary; three assets at once."""
    rng = np.random.default_rng(6)
    frames = [
        pd.DataFrame(
            {
                "time_stamp": pd.date_range("2022-08-04", periods=rows, freq="10min", tz="Europe/Berlin"),
                "asset_id": asset,
                "status_type_id": rng.choice([0, 3, 4, 5], rows).astype("int32"),
                "wind_speed_3_avg": rng.gamma(2, 3, rows).astype("float32"),
                "mode": pd.Categorical(rng.choice(["eco", "full"], rows)),
                "is_fault": rng.random(rows) < 0.1,
            }
        )
        for asset in (10, 21, 38)
    ]
    pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
    return path


def no_times(path: Path, rows: int = 800) -> Path:
    """No time, no binary column, Latin-1, semicolons: the wine of UCI with a degree sign."""
    rng = np.random.default_rng(7)
    lines = ['"fixed acidity";"Temp [°C]";"pH";"alcohol"']
    for cells in rng.normal([7, 20, 3.2, 10], [1, 1, 0.1, 1], (rows, 4)):
        lines.append(";".join(f"{cell:.2f}" for cell in cells))
    path.write_text("\n".join(lines) + "\n", "latin-1")
    return path


ALL = {
    "air.csv": air_quality,
    "power.txt": household_power,
    "beijing.csv": beijing,
    "bracketed.tsv": bracketed,
    "pumps.csv": machine_status,
    "turbines.parquet": turbines,
    "wine.csv": no_times,
}
