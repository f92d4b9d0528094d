"""Score what is new in a folder, each row once; run it again whenever there may be more.

    spark-submit jobs/score_batch.py --model MODEL --data FOLDER --output SCORES

The last line of stdout is the summary, one JSON object.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.job import Alarm, check_alarm_code, run_job
from insitu.scoring.thresholds import read_thresholds


def main() -> dict[str, Any]:
    """Parse, start Spark, score."""
    parser = argparse.ArgumentParser(prog="score_batch", description="Score what is new in a folder, each row once.")
    add = parser.add_argument
    add("--model", required=True, action="append", help="model directory or registry; may repeat: all score a row")
    add("--data", required=True, help="folder of Parquet files or of images")
    add("--output", required=True, help="folder of the tables scores, quarantine and monitoring")
    add("--runtime", default="openvino", help="openvino (default), tensorflow or bigdl")
    add("--precision", help="int8, bf16 or fp32 (default: int8 where the model has it, else fp32)")
    add("--batch", type=int, default=32, help="rows that are inferred together (default: 32)")
    add("--id-column", help="of Parquet (default: id; where there is none, file and row)")
    add("--image-column", help="where it cannot be recognised")
    add("--tensor-column", help="where it cannot be recognised")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="score only such rows; may repeat")
    add("--thresholds", metavar="FILE", help="YAML: thresholds of the decisions")
    add("--max-bad-fraction", type=float, default=0.01, help="of a batch's rows (default: 0.01)")
    add("--files-per-batch", type=int, default=1000, help="that are published together (default: 1000)")
    add("--send-to-label", type=int, default=0, metavar="K", help="rows of a batch for people to label (default: 0)")
    add("--label-by", default="uncertain", help="which rows: uncertain (default) or drifted")
    add("--alarm-exit-code", type=int, default=0, metavar="N", help="of a run in which something drifted (default: 0)")
    args = parser.parse_args()
    check_alarm_code("--alarm-exit-code", args.alarm_exit_code)
    thresholds = read_thresholds(args.thresholds)
    from insitu.scoring.batch import Request, conditions, score_batch

    given = ("id_column", "image_column", "tensor_column", "max_bad_fraction", "files_per_batch", "send_to_label")
    asked = {name: getattr(args, name) for name in (*given, "label_by")}
    summary = score_batch(
        spark_session("insitu score_batch"),
        models=args.model,
        request=Request(where=conditions(args.where), thresholds=thresholds, **asked),
        **{name: getattr(args, name) for name in ("data", "output", "runtime", "precision", "batch")},
    )
    if summary["alarms"] and args.alarm_exit_code:
        raise Alarm(summary, code=args.alarm_exit_code)
    return summary


if __name__ == "__main__":
    run_job("score_batch", main)
