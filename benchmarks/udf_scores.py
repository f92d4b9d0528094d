"""The peer of a scoring job: Spark's predict_batch_udf with Keras in fp32, from Parquet JPEG to Parquet scores.

    spark-submit benchmarks/udf_scores.py MODEL_DIRECTORY WARM_UP_FOLDER FOLDER BATCH

Images are decoded as the job does it, by as many threads as a task has cores. The last line is a JSON object with
`images_per_second` of the second folder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType

from insitu import artifact
from insitu.data.decode import decode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("warm_up")
    parser.add_argument("data")
    parser.add_argument("batch", type=int)
    args = parser.parse_args()
    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 1024).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    threads = int(spark.sparkContext.getConf().get("spark.task.cpus", "1"))
    score = predict_batch_udf(_loader(args.model, threads), return_type=ArrayType(FloatType()), batch_size=args.batch)
    with tempfile.TemporaryDirectory() as scratch:
        for place, data in enumerate((args.warm_up, args.data)):
            frame = spark.read.parquet(data)
            started = time.perf_counter()
            frame.select("id", score("image").alias("scores")).write.parquet(f"{scratch}/{place}")
            seconds = time.perf_counter() - started
    print(json.dumps({"images_per_second": frame.count() / seconds}))


def _loader(directory: Path, threads: int) -> Callable[[], Callable[[np.ndarray], np.ndarray]]:
    def load() -> Callable[[np.ndarray], np.ndarray]:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        model = artifact.load_keras(directory)
        forward = tf.function(lambda inputs: model(inputs, training=False))
        images = artifact.Signature.from_json(artifact.read_json(directory / artifact.SIGNATURE)).preprocessing
        assert isinstance(images, artifact.ImagePreprocessing)
        pool = ThreadPoolExecutor(threads)

        def predict(stored: np.ndarray) -> np.ndarray:
            decoded = pool.map(lambda image: decode(image, size=images.size, channels=images.channels), stored)
            return forward(np.stack(list(decoded))).numpy()

        return predict

    return load


if __name__ == "__main__":
    main()
