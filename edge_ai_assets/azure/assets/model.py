"""From a training set to the champion. Training itself is the script `ml/train.py`; where it runs is
`resources.training`'s matter."""

from dataclasses import asdict

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure.automation_conditions import FOLLOWS
from edge_ai_assets.home import Home, point
from edge_ai_assets.metadata import picture, records
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.resources.training import Training, figures, verify
from edge_ai_assets.usecase import UseCase


@dg.asset(
    key=keys.CANDIDATE,
    deps=[keys.TRAINING_SET],
    group_name="model",
    kinds={"scikitlearn", "onnx"},
    owners=[keys.DATA_SCIENCE],
    pool="training",
    check_specs=[
        dg.AssetCheckSpec(
            "parity",
            asset=keys.CANDIDATE,
            blocking=True,
            description="The ONNX model scores real rows as scikit-learn does, and no label differs.",
        )
    ],
)
def candidate(
    context: dg.AssetExecutionContext,
    training: dg.ResourceParam[Training],
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    mirror: dg.ResourceParam[HomeMirror],
):
    """A model trained on the newest training set by the training script, exported to ONNX with its
    contract."""
    from edge_ai_assets.ml import training_set as sets
    from edge_ai_assets.ml.lineage import Lineage

    newest = sets.newest(home.training_sets)
    # A step that is done again in its run may make another model; the former has its name for ever elsewhere.
    again = f"-{context.retry_number}" if context.retry_number else ""
    out = home.candidates / f"{context.run.run_id}{again}"
    out.parent.mkdir(parents=True, exist_ok=True)
    declared = out.parent / f"{context.run.run_id}.yaml"
    usecases.dump(usecase, declared)
    results = training.train(context, declared, newest.path, out)
    verify(out, results)
    if all(result.passed for result in results if isinstance(result, dg.AssetCheckResult)):
        lineage = Lineage(
            training_run=context.run.run_id, training_set=newest.version, usecase=usecase.digest
        )
        lineage.write(out)
        point(home.candidate, out)
        context.add_asset_metadata(
            {
                "training_set": newest.version,
                "model_card": dg.MetadataValue.md((out / "model_card.md").read_text("utf-8")),
                "path": dg.MetadataValue.path(out),
                **mirror.push(home.candidate),
                **training.register(usecase.name, out, lineage, figures(results)),
            }
        )
    yield from results


@dg.asset(
    key=keys.CHAMPION,
    deps=[keys.CANDIDATE],
    group_name="model",
    kinds={"onnx"},
    owners=[keys.DATA_SCIENCE],
    automation_condition=FOLLOWS,
    check_specs=[
        dg.AssetCheckSpec(
            "gate",
            asset=keys.CHAMPION,
            description="The champion's F1 and false alarm rate on held-back rows pass the use case's gates.",
        )
    ],
)
def champion(
    context: dg.AssetExecutionContext,
    training: dg.ResourceParam[Training],
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    mirror: dg.ResourceParam[HomeMirror],
):
    """The better of champion and candidate on held-back runs, feedback from the sites included, if it passes
    the gates."""
    from edge_ai_assets.ml import champion as champions
    from edge_ai_assets.ml import lineage, plots
    from edge_ai_assets.ml import training_set as sets

    contest = champions.contest(home.candidate, home.champion, sets.newest(home.training_sets), usecase.gates)
    if contest.promoted:
        # First: a run that ends in between is repeated, and decides the same.
        training.promote(usecase.name, lineage.read(home.candidate))
        point(home.champion, home.candidate.resolve())
    elif contest.champion is None:
        raise dg.Failure(
            f"there is no model to release: {contest.reason}; lower it in the use case (gates) for a first "
            "release, or check label and features, or let the history hold more (history)",
            allow_retries=False,
        )
    context.log.info(contest.reason)
    standing = contest.challenger if contest.promoted else contest.champion
    assert standing is not None
    came_from = lineage.read(home.champion)
    contenders = {"challenger": contest.challenger, "champion": contest.champion}
    yield dg.MaterializeResult(
        metadata={
            "promoted": contest.promoted,
            "decision": contest.reason,
            "f1": standing.f1,
            "false_alarm_rate": standing.false_alarm_rate,
            "challenger_f1": contest.challenger.f1,
            "challenger_false_alarm_rate": contest.challenger.false_alarm_rate,
            **(
                {
                    "former_f1": contest.champion.f1,
                    "former_false_alarm_rate": contest.champion.false_alarm_rate,
                }
                if contest.champion
                else {}
            ),
            "miss_rate": standing.miss_rate,
            "roc_auc": standing.roc_auc,
            "held_back_rows": standing.rows,
            "contest": records(
                [{"model": name, **asdict(scores)} for name, scores in contenders.items() if scores],
                ["model", "f1", "false_alarm_rate", "miss_rate", "roc_auc"],
            ),
            "training_run": dg.MetadataValue.dagster_run(came_from.training_run),
            "training_set": came_from.training_set,
            "path": dg.MetadataValue.path(home.champion.resolve()),
            **mirror.push(home.champion),
            "confusion": picture(plots.confusion(standing), "confusion matrix on held-back rows"),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="gate",
                passed=champions.passes(standing, usecase.gates),
                severity=dg.AssetCheckSeverity.WARN,
                description=f"F1 {standing.f1:.3f} (at least {usecase.gates.f1}), false alarm rate "
                f"{standing.false_alarm_rate:.3f} (at most {usecase.gates.false_alarm_rate}), held-back rows",
                metadata={"f1": standing.f1, "false_alarm_rate": standing.false_alarm_rate},
            )
        ],
    )
