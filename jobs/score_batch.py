"""Score what is new in a folder, each row once; run it again whenever there may be more.

    spark-submit jobs/score_batch.py --model MODEL --data FOLDER --output SCORES

The last line of stdout is the summary, one JSON object.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.errors import UserError
from insitu.job import Alarm, run_job
from insitu.recipe import read
from insitu.scoring.thresholds import Thresholds

_FIRST_FREE_CODE, _LAST_FREE_CODE = 4, 125


def main() -> dict[str, Any]:
    """Parse, start Spark, score."""
    parser = argparse.ArgumentParser(prog="score_batch", description="Score what is new in a folder, each row once.")
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        help="model directory or registry; may repeat: a row is scored by all",
    )
    parser.add_argument("--data", required=True, help="folder of Parquet files or of images")
    parser.add_argument("--output", required=True, help="folder of the tables scores, quarantine and monitoring")
    parser.add_argument("--runtime", default="openvino", help="openvino (default), tensorflow or bigdl")
    parser.add_argument("--precision", help="int8, bf16 or fp32 (default: int8 where the model has it, else fp32)")
    parser.add_argument("--batch", type=int, default=32, help="rows that are inferred together (default: 32)")
    parser.add_argument("--id-column", help="of Parquet (default: id; where there is none, file and row)")
    parser.add_argument("--image-column", help="where it cannot be recognised")
    parser.add_argument("--tensor-column", help="where it cannot be recognised")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="score only such rows; may repeat"
    )
    parser.add_argument("--thresholds", metavar="FILE", help="YAML: thresholds of the decisions")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01, help="of a batch's rows (default: 0.01)")
    parser.add_argument("--files-per-batch", type=int, default=1000, help="that are published together (default: 1000)")
    parser.add_argument(
        "--send-to-label", type=int, default=0, metavar="K", help="rows of a batch for people to label (default: 0)"
    )
    parser.add_argument("--label-by", default="uncertain", help="which rows: uncertain (default) or drifted")
    parser.add_argument(
        "--alarm-exit-code", type=int, default=0, metavar="N", help="of a run in which something drifted (default: 0)"
    )
    args = parser.parse_args()
    if args.alarm_exit_code and not _FIRST_FREE_CODE <= args.alarm_exit_code <= _LAST_FREE_CODE:
        problem = f"{args.alarm_exit_code}, expected {_FIRST_FREE_CODE} to {_LAST_FREE_CODE}"
        raise UserError("--alarm-exit-code", problem, "0 to 3 and from 126 on mean something else")
    thresholds = (
        read(args.thresholds, [], schema=Thresholds, setting="--thresholds") if args.thresholds else Thresholds()
    )
    from insitu.scoring.batch import Request, conditions, score_batch

    given = ("id_column", "image_column", "tensor_column", "max_bad_fraction", "files_per_batch", "send_to_label")
    asked = {name: getattr(args, name) for name in (*given, "label_by")}
    request = Request(where=conditions(args.where), thresholds=thresholds, **asked)
    summary = score_batch(
        spark_session("insitu score_batch"),
        models=args.model,
        data=args.data,
        output=args.output,
        request=request,
        runtime=args.runtime,
        precision=args.precision,
        batch=args.batch,
    )
    if summary["alarms"] and args.alarm_exit_code:
        raise Alarm(summary, code=args.alarm_exit_code)
    return summary


if __name__ == "__main__":
    run_job("score_batch", main)
