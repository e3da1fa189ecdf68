from __future__ import annotations

import struct

import numpy as np
import pytest

from edge_ai_assets.ml import plots
from edge_ai_assets.ml.drift import judge
from edge_ai_assets.ml.evaluation import scores
from edge_ai_assets.scoring.contract import Reference


def size(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("rows", [0, 1, 1_000_000])
def test_confusion_is_a_small_picture(rows):
    rng = np.random.default_rng(0)
    png = plots.confusion(scores(rng.random(rows) > 0.7, rng.random(rows), 0.5))
    assert max(size(png)) < 800
    assert len(png) < 60_000


@pytest.mark.parametrize("features", [0, 1, 5, 200])
def test_drift_is_a_picture_for_any_number_of_features(features):
    references = [Reference(f"Temp $x$ [°C] {n}", (0.0,), (50, 50), 0.1 * (n % 3)) for n in range(features)]
    counts = {reference.name: np.array([100 - n % 60, n % 60]) for n, reference in enumerate(references)}
    png = plots.drift("bergen", judge(counts, references, share=0.5), references, counts)
    assert size(png)[1] < 1000


def test_the_same_figures_give_the_same_picture():
    made = scores([True, False], [0.9, 0.1], 0.5)
    assert plots.confusion(made) == plots.confusion(made)
