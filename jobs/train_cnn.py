"""Train a CNN from Parquet on Spark.

    spark-submit jobs/train_cnn.py --recipe conf/recipes/digits.yaml --data DATASET --output MODEL

The last line of stdout is the summary, one JSON object. Every key of a recipe: libs/insitu/recipe/schema.py.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.job import run_job
from insitu.recipe import load
from insitu.tracking import add_options, from_options


def main() -> dict[str, Any]:
    """Parse and validate, start Spark, train."""
    parser = argparse.ArgumentParser(prog="train_cnn", description="Train a CNN from Parquet on Spark.")
    parser.add_argument("--recipe", required=True, help="YAML file, such as one of conf/recipes/")
    parser.add_argument("--data", required=True, help="Parquet directory, on any file system that Spark reads")
    parser.add_argument("--output", required=True, help="model directory to make; must not exist")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the unfinished run of this output, if there is one"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key; may repeat"
    )
    add_options(parser)
    args = parser.parse_args()
    recipe, tracking = load(args.recipe, args.set), from_options(args)
    from insitu.training.run import check, train

    check(recipe)
    return train(
        spark_session("insitu train_cnn"),
        recipe,
        data=args.data,
        output=args.output,
        resume=args.resume,
        tracking=tracking,
    )


if __name__ == "__main__":
    run_job("train_cnn", main)
