"""A folder of JPEG, PNG or TIFF files and their labels → a Parquet data set that trains.

spark-submit jobs/ingest.py --data images/ --labels Data_Entry_2017.csv --group-column "Patient ID" --output xrays
spark-submit jobs/ingest.py --data 'hdfs:///photos/*' --output photos        (a folder for each class)
"""

import argparse
import logging
from typing import Any

from insitu.job import run_job


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ingest.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="folder or glob of image files, on any file system that Spark knows")
    add("--output", required=True, help="directory to make: Parquet, with the unusable files in its _quarantine")
    add("--labels", help="CSV file of labels; without it the first folder below --data is the class")
    add("--image-column", help="column of file names, or of paths below --data (default: the first)")
    add("--label-column", nargs="+", default=(), help="'Class', 'A|B' or columns of 0/1 (default: the second)")
    add("--group-column", help="column such as the patient; a group is never in both splits")
    add("--holdout", type=float, default=0.2, help="share of the groups that becomes validation (default: 0.2)")
    add("--seed", type=int, default=17, help="of the split and the order of rows (default: 17)")
    add("--max-bad-fraction", type=float, default=0.01, help="stop past this share of unusable files (default: 0.01)")
    return parser.parse_args()


def main() -> dict[str, Any]:
    """Parse, start Spark, ingest."""
    arguments = _arguments()
    logging.basicConfig(format="ingest: %(message)s")
    logging.getLogger("insitu").setLevel(logging.INFO)

    from insitu.cluster.session import spark_session
    from insitu.data.ingest import ingest

    options = vars(arguments)
    return ingest(spark_session("insitu ingest"), label_columns=options.pop("label_column"), **options)


if __name__ == "__main__":
    run_job("ingest", main)
