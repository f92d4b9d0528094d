package com.intel.analytics.bigdl.insitu

import java.util.concurrent.{Callable, ExecutionException, Executors, ThreadFactory}

import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.mkl.MKL
import org.apache.hadoop.conf.Configuration
import org.apache.spark.insitu.Exchange

import scala.collection.JavaConverters._
import scala.collection.mutable.ArrayBuffer

/** Scores [rows, K] and labels [rows, width] of validation rows, flat. */
final case class Scored(scores: Array[Float], labels: Array[Float], rows: Int)

/** A worker of a run: its networks, its batches, and its slice of the weights and of the optimiser's state.
  *
  * Under mklblas every thread has a replica of the network and a part of the batch, as BigDL does it; under
  * mkldnn one network uses all threads. A step is `compute`, `aggregate` where the optimiser needs norms, and `update`.
  */
final class Worker(
    settings: Settings,
    rank: Int,
    training: Shard,
    validation: Shard,
    hadoop: Configuration
) {
  import settings._

  private val source = Source.parse(settings.source)
  private val head = settings.head
  private val pool = Executors.newFixedThreadPool(threads, Worker.threadFactory)
  private val networks = {
    val count = if (engine == "mklblas") math.min(threads, localBatch) else 1
    val first = Network.build(topology, engine, localBatch)
    first +: Array.fill(count - 1)(first.replica())
  }
  private val weights = Worker.values(networks.head.parameters)
  private val exchange =
    try new Exchange(run, rank, workers, weights.length, truncated)
    catch {
      case error: Throwable =>
        networks.foreach(_.release())
        throw error
    }
  private val own = new Array[Float](exchange.length)
  private var sum = Array.emptyFloatArray
  private val batches = new TrainingBatches(
    training,
    source,
    Augment.parse(settings.augment),
    seed,
    localBatch,
    windowRows,
    rank,
    steps,
    firstStep,
    threads,
    hadoop
  )
  private val jobs = if (optimizer.needsNorms) 3 else 2
  private var done = firstStep.toLong * jobs
  private var failed: Option[Throwable] = None
  private var validating: Option[ValidationBatches] = None

  import exchange.{length, start}
  private val ownSegments = segments.map { segment =>
    val from = math.max(segment.offset, start)
    val to = math.min(segment.offset + segment.size, start + length)
    segment.copy(offset = from - start, size = math.max(0, to - from))
  }
  private val slots =
    try {
      load(initial)
      Array.tabulate(optimizer.slots) { i =>
        if (firstStep == 0) new Array[Float](length) else Vectors.read(s"$initial/slot$i", start, length, hadoop)
      }
    } catch { // Spark may make the worker again: nothing of this one, its blocks least of all, may be left
      case error: Throwable =>
        close()
        throw error
    }

  /** Forward and backward of this worker's batch of step `step`, gradients handed to the others.
    *
    * @return the sum of the rows' losses.
    */
  def compute(step: Int): Double = once(step, 0) {
    exchange.getWeights(own, weights)
    val batch = batches.next()
    val parts = Worker.shares(batch.rows, networks.length)
    val losses = parallel(networks.zip(parts).zipWithIndex.map { case ((network, (from, rows)), replica) =>
      () => learn(network, batch, from, rows, Worker.mix(seed, step, rank, replica))
    })
    addGradients()
    exchange.putGradients(gradients)
    losses.sum
  }

  /** Gathers this worker's slice of all gradients.
    *
    * @return for each variable, the sums of squares of the slice's weights and gradients.
    */
  def aggregate(step: Int): Array[Norms] = once(step, 1) {
    sum = exchange.sumGradients(gradients)
    ownSegments.map(segment => Norms(Worker.squares(own, segment), Worker.squares(sum, segment)))
  }

  /** Ends step `step`: this worker's slice of the weights is updated and published. `norms` as `Optimizer.update`. */
  def update(step: Int, rate: Float, norms: Array[Norms]): Unit = once(step, jobs - 1) {
    if (!optimizer.needsNorms) sum = exchange.sumGradients(gradients)
    optimizer.update(own, sum, slots, ownSegments, rate, step, norms)
    exchange.putWeights(own)
  }

  /** Batch-norm statistics of this worker's own batches; empty where the network has none. */
  def statistics: Array[Float] = {
    val all = networks.map(_.statistics)
    Worker.mean(all)
  }

  def setStatistics(values: Array[Float]): Unit = networks.foreach(_.setStatistics(values))

  /** Before the calls of `validate`, which score with the weights that all workers have now. */
  def beginValidation(): Unit = unlessFailed {
    endValidation()
    exchange.getWeights(own, weights)
    networks.foreach(_.evaluate())
    validating = Some(new ValidationBatches(validation, source, localBatch, windowRows, threads, hadoop))
  }

  /** Scores the next `batches` batches of this worker's validation rows.
    *
    * @return no rows once all are scored.
    */
  def validate(batches: Int): Scored = unlessFailed {
    val scored = ArrayBuffer.empty[Scored]
    for (rows <- validating) {
      while (scored.length < batches && rows.hasNext) {
        val batch = rows.next()
        scored += Scored(scores(batch), batch.labels, batch.rows)
      }
      if (!rows.hasNext) endValidation()
    }
    Scored(scored.toArray.flatMap(_.scores), scored.toArray.flatMap(_.labels), scored.map(_.rows).sum)
  }

  private def endValidation(): Unit = {
    validating.foreach(_.close())
    validating = None
    networks.foreach(_.training())
  }

  /** Writes this worker's slices: `parameters-RANK`, and `slotI-RANK` of each of the optimiser's vectors.
    *
    * @param statistics all workers', which the first one writes.
    */
  def save(directory: String, statistics: Array[Float]): Unit = {
    if (rank == 0) Vectors.write(statistics, s"$directory/statistics", hadoop)
    Vectors.write(own, s"$directory/parameters-$rank", hadoop)
    for ((slot, i) <- slots.zipWithIndex) Vectors.write(slot, s"$directory/slot$i-$rank", hadoop)
  }

  /** Takes over this worker's slice of `parameters`, and all `statistics`. */
  def load(directory: String): Unit = {
    Vectors.read(s"$directory/parameters", start, length, hadoop).copyToArray(own)
    exchange.putWeights(own)
    setStatistics(Vectors.read(s"$directory/statistics", hadoop))
  }

  def close(): Unit = {
    batches.close()
    validating.foreach(_.close())
    exchange.close()
    pool.shutdownNow()
    networks.foreach(_.release())
  }

  private def learn(network: Network, batch: Batch, from: Int, rows: Int, dropoutSeed: Long): Double = {
    network.zeroGradients()
    if (rows == 0) return 0
    network.seedDropout(dropoutSeed)
    val input = source.networkInput(batch, from, rows, scale, offset)
    val gradient = network.forward(input).contiguous().clone()
    val labels = batch.labels.slice(from * source.labelWidth, (from + rows) * source.labelWidth)
    val logits = Worker.values(gradient)
    val loss = head.loss(logits, labels, rows, 1f / globalBatch)
    Worker.fill(gradient, logits)
    network.backward(input, gradient)
    loss
  }

  /** [rows, K], flat; a batch that is not full is filled up with zeros: mkldnn runs only the size it was built for. */
  private def scores(batch: Batch): Array[Float] = {
    val parts = Worker.shares(localBatch, networks.length)
    val found = parallel(networks.zip(parts).map { case (network, (from, rows)) =>
      () => Worker.values(network.forward(source.networkInput(batch, from, rows, scale, offset)).contiguous())
    }).toArray.flatten
    val logits = found.take(batch.rows * (found.length / localBatch))
    head.score(logits, batch.rows)
    logits
  }

  private def addGradients(): Unit = {
    val sum = networks.head.gradients
    val others = networks.tail.map(_.gradients)
    if (others.nonEmpty)
      parallel(Worker.shares(sum.nElement(), threads).filter(_._2 > 0).map { case (from, count) =>
        () => others.foreach(other => sum.narrow(1, from + 1, count).add(other.narrow(1, from + 1, count)))
      })
  }

  private def gradients: Array[Float] = Worker.values(networks.head.gradients)

  /** Every job of every step is done once, in order: a task that Spark repeats would take the next batch. */
  private def once[A](step: Int, job: Int)(work: => A): A = unlessFailed {
    require(done == step.toLong * jobs + job, s"worker $rank has done ${done / jobs} steps, asked for step $step")
    val result = work
    done += 1
    result
  }

  /** A worker that has failed fails again in the same way, so that Spark's repetitions end with the cause. */
  private def unlessFailed[A](work: => A): A = {
    failed.foreach(throw _)
    try work
    catch {
      case error: Throwable =>
        failed = Some(error)
        throw error
    }
  }

  private def parallel[A](works: Seq[() => A]): Seq[A] = {
    val callables = works.map(work => new Callable[A] { def call(): A = work() })
    try pool.invokeAll(callables.asJava).asScala.map(_.get())
    catch { case error: ExecutionException => throw error.getCause }
  }
}

object Worker {

  /** Cuts `count` into `parts` ranges (from, size) whose sizes differ by one at the most. */
  def shares(count: Int, parts: Int): Array[(Int, Int)] =
    Array.tabulate(parts) { i =>
      val from = (count.toLong * i / parts).toInt
      (from, (count.toLong * (i + 1) / parts).toInt - from)
    }

  private[insitu] def values(tensor: Tensor[Float]): Array[Float] = {
    val from = tensor.storageOffset() - 1
    val all = tensor.storage().array()
    if (from == 0 && all.length == tensor.nElement()) all else all.slice(from, from + tensor.nElement())
  }

  private[insitu] def fill(tensor: Tensor[Float], values: Array[Float]): Unit =
    System.arraycopy(values, 0, tensor.storage().array(), tensor.storageOffset() - 1, values.length)

  private def mean(vectors: Array[Array[Float]]): Array[Float] =
    vectors.head.indices.map(i => (vectors.map(_(i).toDouble).sum / vectors.length).toFloat).toArray

  private def squares(values: Array[Float], segment: Segment): Double = {
    var sum = 0.0
    for (i <- segment.offset until segment.offset + segment.size) sum += values(i).toDouble * values(i)
    sum
  }

  /** One seed from several numbers; splitmix64's finaliser (Steele, Lea, Flood 2014). */
  private def mix(numbers: Long*): Long = numbers.foldLeft(0L) { (state, number) =>
    var z = state + number + 0x9e3779b97f4a7c15L
    z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L
    z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL
    z ^ (z >>> 31)
  }

  private val threadFactory: ThreadFactory = new ThreadFactory {
    def newThread(work: Runnable): Thread = {
      val thread = new Thread(
        () => {
          MKL.setNumThreads(1) // counts for the calling thread
          work.run()
        },
        "insitu-worker"
      )
      thread.setDaemon(true)
      thread
    }
  }
}
