"""The best items for each user, from a model of jobs/train_als.py to Parquet: user, rank, item, score.

    spark-submit jobs/recommend.py --model MODEL --output OUT --top 10 --filter-seen

The last line of stdout is the summary, one JSON object.
"""

import argparse
from typing import Any

from insitu.cluster.session import spark_session
from insitu.job import run_job


def main() -> dict[str, Any]:
    """Parse, start Spark, write the lists."""
    parser = argparse.ArgumentParser(prog="recommend", description="Write the best items for each user to Parquet.")
    parser.add_argument("--model", required=True, help="model directory that jobs/train_als.py made")
    parser.add_argument("--output", required=True, help="directory to make: Parquet with user, rank, item, score")
    parser.add_argument("--users", help="Parquet, or CSV with a header, of users (default: all of the model)")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="the most items for a user (default: 10)")
    parser.add_argument(
        "--filter-seen",
        nargs="?",
        const=True,
        default=False,
        metavar="DATA",
        help="leave out what the user rated in the training data, or in DATA",
    )
    args = parser.parse_args()
    from insitu.recommend.write import write_recommendations

    return write_recommendations(
        spark_session("insitu recommend"),
        model=args.model,
        output=args.output,
        users=args.users,
        top=args.top,
        seen=args.filter_seen,
    )


if __name__ == "__main__":
    run_job("recommend", main)
