"""Features on Spark: `spark-submit spark_features.py --plan PLAN --raw FOLDER --out FOLDER`.

Runs the SQL text of a `feature_plan.Plan` and nothing of its own, so this one file is all that a cluster
needs: no package beside Spark (3.3 or newer) and no newer Python than 3.8. Paths are local or URIs such as
abfss://lake@account.dfs.core.windows.net/raw_telemetry.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OPTIONS = {
    # Readings have no time zone: what a time is must not depend on where the cluster stands.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Without it a time before 1900 is an error, as another calendar may be meant.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.compression.codec": "zstd",
}


def main(arguments: list[str] | None = None) -> None:
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description="Make features by a plan.")
    parser.add_argument("--plan", required=True, help="plan, JSON")
    parser.add_argument("--raw", required=True, help="folder with the files that the plan names")
    parser.add_argument("--out", required=True, help="folder to write; replaced if it is there")
    given = parser.parse_args(arguments)
    spark = SparkSession.builder.appName("edge-ai features").getOrCreate()
    try:
        plan = spark.read.text(given.plan, wholetext=True).collect()[0][0]
        print(json.dumps(run(spark, plan, given.raw, given.out)))
    finally:
        spark.stop()


def run(spark: SparkSession, plan_text: str, raw: str, out: str) -> dict[str, Any]:
    """Write features as Parquet files and then `manifest.json`, which is also returned."""
    plan = json.loads(plan_text)
    for name, value in OPTIONS.items():
        spark.conf.set(name, value)
    files = [f"{raw.rstrip('/')}/{name}" for name in plan["files"]]
    found = spark.read.option("mergeSchema", "true").parquet(*files)
    there = {name.lower() for name in found.columns}  # in whatever case: SQL does not tell them apart
    columns = [
        _quoted(name) if name.lower() in there else f"CAST(NULL AS {kind}) AS {_quoted(name)}"
        for name, kind in plan["columns"].items()
    ]
    found.selectExpr(*columns, "_metadata.file_name AS _file").createOrReplaceTempView("readings")
    spark.sql(plan["query"]).write.mode("overwrite").parquet(out)
    manifest = {
        "plan": hashlib.sha256(plan_text.encode()).hexdigest()[:16],
        "usecase": plan["usecase"],
        "engine": f"spark {spark.version}",
        "rows_read": found.count(),
        "rows": spark.read.parquet(out).count(),
    }
    _write(spark, f"{out.rstrip('/')}/manifest.json", json.dumps(manifest).encode())
    return manifest


def _write(spark: SparkSession, path: str, content: bytes) -> None:
    """Write a file wherever Spark can."""
    context: Any = spark.sparkContext
    target = context._jvm.org.apache.hadoop.fs.Path(path)
    stream = target.getFileSystem(context._jsc.hadoopConfiguration()).create(target, True)
    stream.write(bytearray(content))
    stream.close()


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


if __name__ == "__main__":
    main()
