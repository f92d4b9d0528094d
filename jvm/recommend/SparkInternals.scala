package org.apache.spark.ml.recommendation

import java.util.Random

import scala.concurrent.duration.Duration

import org.apache.hadoop.fs.Path

import org.apache.spark.ShuffleDependency
import org.apache.spark.mllib.optimization.NNLS
import org.apache.spark.rdd.RDD
import org.apache.spark.sql.DataFrame
import org.apache.spark.util.ThreadUtils
import org.apache.spark.util.random.XORShiftRandom

/** What Spark keeps to its own packages. */
object SparkInternals {

  def model(uid: String, rank: Int, users: DataFrame, items: DataFrame): ALSModel =
    new ALSModel(uid, rank, users, items)

  def random(seed: Long): Random = new XORShiftRandom(seed)

  /** The x >= 0 that minimises x' matrix x / 2 - right' x. */
  def nonnegative(matrix: Array[Double], right: Array[Double]): Array[Double] =
    NNLS.solve(matrix, right, NNLS.createWorkspace(right.length))

  /** Remove the files of a shuffle whose result is kept elsewhere. */
  def dropShuffle(shuffled: RDD[_]): Unit = shuffled.dependencies.collect { case shuffle: ShuffleDependency[_, _, _] =>
    shuffled.sparkContext.cleaner.foreach(_.doCleanupShuffle(shuffle.shuffleId, blocking = false))
  }

  /** Write the shuffle files of `shuffled`, in a job of its own; later jobs find them.
    *
    * @throws SparkException as any job.
    */
  def runMapStage(shuffled: RDD[_]): Unit = shuffled.dependencies.collect { case shuffle: ShuffleDependency[_, _, _] =>
    val action = shuffled.sparkContext.submitMapStage(shuffle)
    ThreadUtils.awaitReady(action, Duration.Inf)
    action.value.get.get
  }

  /** Do what `checkpoint` or `localCheckpoint` asked for; Spark does it after a job on this very RDD only. */
  def cutLineage(rdd: RDD[_]): Unit = rdd.doCheckpoint()

  def deleteCheckpoint(rdd: RDD[_]): Unit = rdd.getCheckpointFile.map(new Path(_)).foreach { file =>
    file.getFileSystem(rdd.sparkContext.hadoopConfiguration).delete(file, true)
  }
}
