"""The contract: what it accepts becomes exactly the matrix, what it refuses is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY, Contract, ContractError, Input, Reference
from edge_ai_assets_tests.tiny_model import INPUTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault", (Reference("Temperature", (0.0, 10.0), (1, 2, 3), 0.2),))
FREE = Contract("free", (Input("x", "number", "", "x"),), 0.5, "fault")
GOOD = {"Pressure [bar]": [1.0, None], "Temperature": [10, float("nan")], "Pump type": ["screw", None]}


def test_columns_become_the_matrix_in_the_order_of_the_inputs():
    matrix = CONTRACT.encode(GOOD)
    expected = np.array([[1, 10, 1, np.nan], [np.nan, np.nan, -1, np.nan]], np.float32)
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.float32 and matrix.flags.c_contiguous


def test_an_unknown_category_is_scored_as_unknown():
    assert CONTRACT.encode(GOOD | {"Pump type": ["piston", "centrifugal"]})[:, 2].tolist() == [-1, 0]


@pytest.mark.parametrize(
    "values", [np.array([1, 2]), np.array([1.0, 2.0], np.float32), (1, 2.0), np.array([1, 2], object)]
)
def test_numbers_may_come_in_any_sequence(values):
    assert FREE.encode({"x": values})[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Flow": [1, 2]}, "field 'Flow' is not an input of this model"),
        ({"Temperature": None}, "field 'Temperature' is missing"),
        (
            {"Temperature": [1]},
            r"one length: field 'Temperature' has 1 values, field 'Pressure \[bar\]' has 2",
        ),
        ({"Temperature": [1, "20"]}, "row 1: 'Temperature' must be a number, it is text"),
        ({"Temperature": [True, 1]}, "row 0: 'Temperature' must be a number, it is a boolean"),
        ({"Temperature": [1, [2]]}, "row 1: 'Temperature' must be a number, it is a list"),
        ({"Temperature": [1, {}]}, "row 1: 'Temperature' must be a number, it is an object"),
        ({"Temperature": [1, 150.1]}, "row 1: 'Temperature' is 150.1, it must be between -40 and 150 °C"),
        ({"Temperature": [1, float("inf")]}, "row 1: 'Temperature' is inf"),
        ({"Temperature": np.array([True, False])}, "row 0: 'Temperature' must be a number"),
        ({"Pump type": ["screw", 1]}, "row 1: 'Pump type' must be text, it is a number"),
        ({"Pump type": ["screw", False]}, "row 1: 'Pump type' must be text, it is a boolean"),
    ],
)
def test_what_is_refused_is_named(change, message):
    columns = {name: values for name, values in (GOOD | change).items() if values is not None}
    with pytest.raises(ContractError, match=message):
        CONTRACT.encode(columns)


@pytest.mark.parametrize(
    ("low", "high", "message"), [(None, 25, "at most 25 bar"), (-5, None, "at least -5 bar")]
)
def test_a_range_with_one_side_is_told_so(low, high, message):
    one_sided = Contract("one", (Input("x", "number", "bar", "x", low, high),), 0.5, "fault")
    with pytest.raises(ContractError, match=f"row 0: 'x' is -?30, it must be {message}$"):
        one_sided.encode({"x": [30 if low is None else -30]})


@pytest.mark.parametrize("value", [1e39, -1e39, 1e308, 10**30 * 10**30, float("-inf")])
def test_what_float32_cannot_hold_is_refused_even_without_a_range(value):
    with pytest.raises(ContractError, match=r"row 1: 'x' is .*, it must be finite"):
        FREE.encode({"x": [0, value]})


def test_a_whole_number_of_any_size_is_an_error_and_no_crash():
    with pytest.raises(ContractError, match="row 1: 'x' is a whole number too large"):
        FREE.encode({"x": [0, 10**400]})


def test_the_bounds_themselves_are_inside():
    columns = {"Pressure [bar]": [0, 25], "Temperature": [-40, 150], "Pump type": [None, None]}
    assert CONTRACT.encode(columns)[:, 0].tolist() == [0, 25]


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_a_bound_is_inside_whatever_its_digits_and_however_it_comes(one: float, other: float):
    low, high = min(one, other), max(one, other)
    bounded = Contract("bounded", (Input("x", "number", "", "x", low, high),), 0.5, "fault")
    for kind in (np.float64, np.float32):
        assert len(bounded.encode({"x": np.array([low, high], kind)})) == 2
    assert len(bounded.encode({"x": [low, high]})) == 2
    for beyond in (np.nextafter(np.float32(high), np.float32(np.inf)), np.float32(high) + abs(high) + 1):
        with pytest.raises(
            ContractError, match=f"row 0: 'x' is .*, it must be between {low:g} and".replace("+", r"\+")
        ):
            bounded.encode({"x": [float(beyond)]})


def test_the_first_row_that_is_wrong_is_named_by_its_first_input():
    columns = {"Pressure [bar]": [1, 1, 26], "Temperature": [1, 151, 151], "Pump type": [None] * 3}
    with pytest.raises(ContractError, match="row 1: 'Temperature' is 151"):
        CONTRACT.encode(columns)


def test_rows_that_were_read_elsewhere_are_narrowed_to_the_same_matrix():
    wide = CONTRACT.widened(GOOD)
    assert wide.dtype == np.float64 and wide.shape == (2, 4)
    for order in (wide, np.ascontiguousarray(wide)):
        matrix, _ = CONTRACT.narrowed(order)
        np.testing.assert_array_equal(matrix, CONTRACT.encode(GOOD))
        assert matrix.flags.c_contiguous == order.flags.c_contiguous


def test_a_category_has_no_range():
    odd = Contract("odd", (Input("k", "category", "", "k", 5.0, 6.0, categories=("a",)),), 0.5, "fault")
    assert odd.encode({"k": ["a", None]}).tolist() == [[0], [-1]]


@given(st.lists(st.none() | st.floats(-40, 150, width=32), min_size=1, max_size=20))
def test_every_plausible_number_arrives_unchanged(values):
    blank = [None] * len(values)
    column = CONTRACT.encode({"Pressure [bar]": blank, "Temperature": values, "Pump type": blank})[:, 1]
    assert [None if np.isnan(value) else value for value in column] == values


@given(
    st.lists(
        st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=3), min_size=1, max_size=5
    )
)
def test_anything_is_either_finite_or_refused(values):
    try:
        matrix = FREE.encode({"x": values})
    except ContractError as error:
        assert "'x'" in str(error)
    else:
        assert not np.isinf(matrix).any()


def test_outside_means_outside_the_trained_range_and_missing_is_not():
    columns = {"Pressure [bar]": [0.5, 1, 20, 20.5, None], "Temperature": [5] * 5, "Pump type": ["screw"] * 5}
    beyond = CONTRACT.beyond(CONTRACT.encode(columns))
    assert beyond.any(axis=1).tolist() == [True, False, False, True, False]
    assert beyond.sum(axis=0).tolist() == [2, 0, 0, 0]


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(0, 25, width=32),
            st.none() | st.floats(-40, 150, width=32),
            st.sampled_from(["screw", "centrifugal", "piston", None]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_odd_rows_are_those_of_which_there_is_something_to_say(rows):
    pressures, temperatures, kinds = map(list, zip(*rows, strict=True))
    columns = {"Pressure [bar]": pressures, "Temperature": temperatures, "Pump type": kinds}
    wide = CONTRACT.widened(columns)
    matrix, odd = CONTRACT.narrowed(wide)
    said = CONTRACT.beyond(matrix) | np.isnan(matrix)
    said |= (wide == UNKNOWN_CATEGORY) & [item.kind == "category" for item in CONTRACT.inputs]
    assert odd.tolist() == np.flatnonzero(said.any(axis=1)).tolist()


def test_writing_and_reading_gives_the_same_contract_and_bytes(tmp_path: Path):
    contract.write(CONTRACT, tmp_path / "a")
    assert contract.read(tmp_path / "a") == CONTRACT
    contract.write(contract.read(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_contract_of_another_format_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(msgspec.json.encode(msgspec.structs.replace(CONTRACT, format=2)))
    with pytest.raises(ContractError, match="contract format 2, this version reads 1"):
        contract.read(tmp_path / "a")


def test_a_malformed_contract_names_the_field(tmp_path: Path):
    (tmp_path / "a").write_text('{"usecase": "x", "inputs": [], "threshold": "high", "label": "y"}')
    with pytest.raises(msgspec.ValidationError, match=r"\$\.threshold"):
        contract.read(tmp_path / "a")
