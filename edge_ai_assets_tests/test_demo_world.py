"""What the demo's world knows of readings: the same rows under the same numbers as the site."""

from edge_ai_assets import usecase
from edge_ai_assets.demo.world import numbered

CASE = usecase.loads(
    """
name: mill
time: {columns: [time]}
runs: {column: run}
features: [{name: flow}]
label: {column: fault, positive: [1]}
sites: [{name: north}]
"""
)


def test_rows_of_a_run_are_numbered_on_over_files_in_the_order_of_their_names(tmp_path):
    paths = []
    for name, hour in (("b.csv", 1), ("a.csv", 0)):
        rows = "".join(f"2026-01-01 0{hour}:00:0{second},r,{hour},{hour}\n" for second in range(5))
        (tmp_path / name).write_text(f"time,run,flow,fault\n{rows}")
        paths.append(("north", tmp_path / name))
    found = [
        (row, bool(label))
        for _, readings in numbered(paths, CASE)
        for row, label in zip(readings["_row"], readings["_label"], strict=True)
    ]
    assert found == [(row, row >= 5) for row in range(10)]
