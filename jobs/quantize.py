"""Quantise a model of jobs/train_cnn.py: a copy of its directory that also holds bf16 and INT8 for OpenVINO.

    spark-submit jobs/quantize.py --model MODEL --data DATASET --output QUANTISED

The last line of stdout is the summary, one JSON object.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.job import run_job


def main() -> dict[str, Any]:
    """Parse, start Spark, quantise."""
    parser = argparse.ArgumentParser(prog="quantize", description="Quantise a model for OpenVINO.")
    parser.add_argument("--model", required=True, help="model directory that jobs/train_cnn.py made")
    parser.add_argument(
        "--data", required=True, help="labelled dataset: training rows calibrate, validation rows measure"
    )
    parser.add_argument("--output", required=True, help="model directory to make; must not exist")
    parser.add_argument(
        "--max-drop", type=float, default=0.005, help="of macro AUC, or of accuracy, that is allowed (default: 0.005)"
    )
    parser.add_argument(
        "--ranges", default="minmax", help="how tensors' ranges are found: minmax (default), histogram or percentile"
    )
    parser.add_argument(
        "--calibration-rows", type=int, default=300, metavar="N", help="drawn from the training rows (default: 300)"
    )
    parser.add_argument(
        "--sparsity",
        type=float,
        default=0.0,
        metavar="S",
        help="share of each layer's weights to zero first (default: 0)",
    )
    parser.add_argument("--clusters", type=int, metavar="N", help="values that each layer's weights share, 2 to 256")
    args = parser.parse_args()
    from insitu.scoring.quantize import quantize

    return quantize(
        spark_session("insitu quantize"),
        model=args.model,
        data=args.data,
        output=args.output,
        max_drop=args.max_drop,
        ranges=args.ranges,
        calibration_rows=args.calibration_rows,
        sparsity=args.sparsity,
        clusters=args.clusters,
    )


if __name__ == "__main__":
    run_job("quantize", main)
