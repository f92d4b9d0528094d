"""Train an ALS recommendation model from ratings on Spark.

    spark-submit jobs/train_als.py --recipe conf/recipes/als.yaml --data RATINGS --output MODEL

The last line of stdout is the summary, one JSON object. Every key of a recipe: libs/insitu/recommend/recipe.py.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.job import run_job
from insitu.recommend.recipe import load_als


def main() -> dict[str, Any]:
    """Parse and validate, start Spark, train."""
    parser = argparse.ArgumentParser(prog="train_als", description="Train an ALS recommendation model on Spark.")
    parser.add_argument("--recipe", required=True, help="YAML file, such as conf/recipes/als.yaml")
    parser.add_argument(
        "--data", required=True, help="Parquet directory, or CSV with a header, on any file system that Spark reads"
    )
    parser.add_argument("--output", required=True, help="model directory to make; must not exist")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key; may repeat"
    )
    args = parser.parse_args()
    recipe = load_als(args.recipe, args.set)
    from insitu.recommend.train import train_als

    return train_als(spark_session("insitu train_als"), recipe, data=args.data, output=args.output)


if __name__ == "__main__":
    run_job("train_als", main)
