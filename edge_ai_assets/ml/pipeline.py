"""The scikit-learn pipeline of a use case, made only of parts whose ONNX export agrees with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ai_assets.scoring.contract import Input
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class EstimatorError(ValueError):
    """The estimator refuses its parameters."""


def build(usecase: UseCase, inputs: Sequence[Input], made: np.ndarray) -> Pipeline:
    """An unfitted pipeline for a float32 matrix that a contract encoded, shape (n, inputs).

    A number that is missing in every row is passed over, since no estimator can be fitted on it; the pipeline
    still takes its column, so that positions stay what the contract says.

    Category codes become one column a category; an unknown one has 0 in all. Gradient boosting takes missing
    numbers as they are. The others get the median instead: a forest with missing values exports and then
    scores wrongly. Only logistic regression is scaled: float32 rounding moves values across the split points
    of trees.

    Raises:
        EstimatorError: a parameter that the estimator does not have.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    seen = ~np.isnan(made).all(axis=0)
    numbers = [at for at, item in enumerate(inputs) if item.kind == "number" and seen[at]]
    categories = [at for at, item in enumerate(inputs) if item.kind == "category"]
    median = SimpleImputer(strategy="median")
    match usecase.estimator.name:
        case "hist_gradient_boosting":
            prepared: Any = "passthrough"
        case "logistic_regression":
            prepared = make_pipeline(median, StandardScaler())
        case _:
            prepared = median
    parts: list[tuple[str, Any, list[int]]] = []
    if numbers:
        parts.append(("numbers", prepared, numbers))
    if categories:
        codes = [np.arange(len(inputs[at].categories), dtype=np.float32) for at in categories]
        one_hot = OneHotEncoder(
            categories=codes, handle_unknown="ignore", sparse_output=False, dtype=np.float32
        )
        parts.append(("categories", one_hot, categories))
    return make_pipeline(ColumnTransformer(parts), _estimator(usecase))


def _estimator(usecase: UseCase) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    name, parameters = usecase.estimator.name, dict(usecase.estimator.parameters)
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "hist_gradient_boosting": (HistGradientBoostingClassifier, {"early_stopping": False}),
        "random_forest": (RandomForestClassifier, {"min_samples_leaf": 5}),
        "extra_trees": (ExtraTreesClassifier, {"min_samples_leaf": 5}),
        "logistic_regression": (LogisticRegression, {"max_iter": 1000}),
    }
    kind, defaults = known[name]
    made = kind(random_state=0)
    if unknown := sorted(set(parameters) - set(made.get_params())):
        raise EstimatorError(
            f"estimator.parameters.{unknown[0]}: {name} has no such parameter, it has "
            f"{sorted(made.get_params())}"
        )
    return made.set_params(**{**defaults, **parameters})
