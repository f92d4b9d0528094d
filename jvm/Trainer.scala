package com.intel.analytics.bigdl.insitu

import org.apache.hadoop.conf.Configuration
import org.apache.spark.SparkEnv
import org.apache.spark.rdd.RDD
import org.apache.spark.sql.SparkSession
import org.apache.spark.util.SerializableConfiguration

import scala.reflect.ClassTag

/** The workers of a run as the driver sees them: one in each executor, driven step by step by Spark jobs.
  *
  * A step is two jobs, as in BigDL's DistriOptimizer (Dai et al. 2019, arXiv:1804.05839, section 3.3): the first
  * computes gradients, the second has each worker sum and apply its slice of them. It is not that class itself, which
  * draws batches with repetition, keeps momentum out of its checkpoints and writes those to the driver's disk.
  *
  * @param settingsJson for `Settings.parse`.
  */
final class Trainer(spark: SparkSession, settingsJson: String) {
  private val sc = spark.sparkContext
  private val settings = Settings.parse(settingsJson)
  private val workers = onExecutors((0 until settings.workers).map(identity))

  /** Makes the workers; nothing else may use the executors' BigDL meanwhile.
    *
    * @return for each, the cores that its executor may run on, as `Compute.cores`.
    */
  def start(): Array[String] = {
    val shards = Shards.read(spark, settings.trainPlan).zip(Shards.read(spark, settings.validationPlan))
    val (shared, hadoop) = (settings, sc.broadcast(new SerializableConfiguration(sc.hadoopConfiguration)))
    inGroup("workers are made") {
      onExecutors(shards.zipWithIndex)
        .map { case ((training, validation), rank) =>
          Workers.start(shared, rank, training, validation, hadoop.value.value)
          Compute.cores
        }
        .collect()
    }
  }

  /** One optimiser step of all workers.
    *
    * @param step steps of the run done before it.
    * @return the mean loss of the global batch.
    */
  def step(step: Int, rate: Double): Double = inGroup(s"step $step") {
    val losses = onWorkers(_.compute(step))
    val norms = if (settings.optimizer.needsNorms) addUp(onWorkers(_.aggregate(step))) else Array.empty[Norms]
    onWorkers(_.update(step, rate.toFloat, norms))
    losses.sum / settings.globalBatch
  }

  /** Before the calls of `validate`: all workers get the same statistics, and start at their first row. */
  def beginValidation(): Unit = inGroup("validation begins") {
    shareStatistics()
    onWorkers(_.beginValidation())
  }

  /** Scores some more validation rows of each worker, which are added to the driver's own files `scores-RANK` and
    * `labels-RANK` in `directory`.
    *
    * @return how many; 0 once all rows are scored.
    */
  def validate(directory: String): Int = inGroup("validation") {
    val scored = onWorkers(_.validate(Trainer.ValidationBatches))
    for ((part, rank) <- scored.zipWithIndex) {
      Vectors.append(part.scores, s"$directory/scores-$rank")
      Vectors.append(part.labels, s"$directory/labels-$rank")
    }
    scored.map(_.rows).sum
  }

  /** Writes `parameters-RANK`, `slotI-RANK` and `statistics` to `directory`; returns the number of slots. */
  def save(directory: String): Int = inGroup("weights are saved") {
    val statistics = shareStatistics()
    onWorkers(_.save(directory, statistics))
    settings.optimizer.slots
  }

  /** Has the workers take over `parameters` and `statistics` of `directory`. */
  def load(directory: String): Unit = inGroup("weights are loaded") {
    onWorkers(_.load(directory))
  }

  /** Stops what runs in the executors; the call that waits for it fails. */
  def cancel(): Unit = sc.cancelJobGroup(settings.run)

  def close(): Unit = inGroup("workers end") {
    val run = settings.run
    workers.foreach(_ => Workers.close(run))
  }

  /** The mean over the workers, which all have afterwards: moving averages are linear, so later ones do not change. */
  private def shareStatistics(): Array[Float] = {
    val all = onWorkers(_.statistics)
    val mean = all.transpose.map(values => (values.map(_.toDouble).sum / values.length).toFloat)
    onWorkers(_.setStatistics(mean))
    mean
  }

  private def addUp(parts: Array[Array[Norms]]): Array[Norms] = parts.transpose.map { slices =>
    Norms(math.sqrt(slices.map(_.weight).sum), math.sqrt(slices.map(_.gradient).sum))
  }

  private def onWorkers[A: ClassTag](work: Worker => A): Array[A] = {
    val (run, executors) = (settings.run, settings.executors)
    workers.map(rank => work(Workers.of(run, rank, executors(rank)))).collect()
  }

  /** One element a worker, each in its own partition and wanted on that worker's executor. */
  private def onExecutors[A: ClassTag](elements: Seq[A]): RDD[A] =
    if (sc.isLocal) sc.parallelize(elements, elements.length)
    else
      sc.makeRDD(elements.zipWithIndex.map { case (element, rank) =>
        (element, Seq(s"executor_${settings.hosts(rank)}_${settings.executors(rank)}"))
      })

  private def inGroup[A](description: String)(jobs: => A): A = {
    sc.setJobGroup(settings.run, s"insitu: $description", interruptOnCancel = true)
    try jobs
    finally sc.clearJobGroup()
  }
}

private object Trainer {
  val ValidationBatches = 8
}

/** The worker is not where it was made: its executor is lost, or another run took its place. */
final class WorkerGone(message: String) extends RuntimeException(message)

/** The workers that this executor holds, of one run; those of a new run take the place of an older one's. */
object Workers {
  @volatile private var run = ""
  @volatile private var held = Map.empty[Int, Worker]

  def start(
      settings: Settings,
      rank: Int,
      training: Shard,
      validation: Shard,
      hadoop: Configuration
  ): Unit = synchronized {
    val executor = SparkEnv.get.executorId
    if (executor != settings.executors(rank))
      throw new WorkerGone(s"worker $rank came to executor $executor, not ${settings.executors(rank)}")
    if (run != settings.run) {
      close(run)
      run = settings.run
      Compute.begin(settings.engine, settings.threads)
    }
    held.get(rank).foreach(_.close()) // of a task that Spark repeats
    held -= rank
    held += rank -> new Worker(settings, rank, training, validation, hadoop)
  }

  def of(run: String, rank: Int, executor: String): Worker =
    if (run == this.run && held.contains(rank)) held(rank)
    else
      throw new WorkerGone(s"worker $rank was on executor $executor, and executor ${SparkEnv.get.executorId} has none")

  /** Ends the workers of a run, if they are still here. */
  def close(run: String): Unit = synchronized {
    if (run == this.run) {
      held.values.foreach(_.close())
      held = Map.empty
    }
  }
}
