package insitu.recommend.als

import scala.util.hashing.byteswap64

import org.apache.spark.HashPartitioner
import org.apache.spark.ml.recommendation.SparkInternals
import org.apache.spark.rdd.RDD
import org.apache.spark.storage.StorageLevel

/** The factors of one side, computed by the first Spark job that needs them.
  *
  * @param blocks block b is the one element of partition b.
  * @param messages what they are made from, if it was shuffled.
  */
private[als] final class Factors(val blocks: RDD[Solved], problem: Problem, messages: Option[RDD[_]]) {

  /** The rows' squared errors, and of implicit feedback the sum over all rows x of x x', [k, k], upper triangle. */
  private lazy val sums: (Double, Option[Array[Float]]) = {
    val problem = this.problem
    val parts = blocks.sparkContext.runJob(blocks, (block: Iterator[Solved]) => HalfIteration.sums(problem, block.next()))
    (parts.map(_._1).sum, if (problem.implicitly) Some(HalfIteration.total(parts.map(_._2))) else None)
  }

  def loss: Double = sums._1

  /** What every row of the other side's normal matrix has of these; None of explicit feedback. */
  def base: Option[Array[Float]] = if (problem.implicitly) sums._2 else None

  /** Forget what the blocks were made from; they are there. */
  def settle(): Unit = SparkInternals.cutLineage(blocks)

  /** Free the memory and disk of the blocks, and their checkpoint. */
  def drop(): Unit = {
    blocks.unpersist(blocking = false)
    messages.foreach(SparkInternals.dropShuffle)
    SparkInternals.deleteCheckpoint(blocks)
  }
}

/** One side's factors from the other's.
  *
  * They are cut from their lineage as they are made, so that neither the plan nor the shuffle files grow with the
  * iterations.
  *
  * @param level where they are kept.
  */
private[als] final class HalfIteration(problem: Problem, level: StorageLevel) {

  /** Random factors of length 1: MLlib's for this seed and these blocks. */
  def random(side: RDD[InBlock], seed: Long): Factors = {
    val rank = problem.rank
    val blocks = side.mapPartitionsWithIndex { (number, block) =>
      val ids = block.next().ids
      Iterator.single(Solved(ids, HalfIteration.random(number, ids, rank, seed), Double.NaN))
    }
    new Factors(blocks.persist(level), problem, None)
  }

  /** Solve the rows of one side.
    *
    * @param senders the other side's factors, which `routes` says where to send.
    * @param side the rows' ratings.
    * @param previous the rows' last factors.
    * @param lasting whether the result goes to the checkpoint directory.
    */
  def solve(
      senders: Factors,
      routes: RDD[Route],
      side: RDD[InBlock],
      previous: Option[Factors],
      lasting: Boolean
  ): Factors = {
    val (problem, base) = (this.problem, senders.base)
    val messages = senders.blocks
      .zipPartitions(routes)((solved, routes) => routes.next().messages(solved.next().factors, problem.rank))
      .partitionBy(new HashPartitioner(side.getNumPartitions))
    val blocks = previous.filter(_ => problem.conjugateGradient) match {
      case None =>
        side.zipPartitions(messages)((block, sent) => HalfIteration.solve(problem, base, block.next(), sent, None))
      case Some(last) =>
        side.zipPartitions(messages, last.blocks) { (block, sent, start) =>
          HalfIteration.solve(problem, base, block.next(), sent, Some(start.next().factors))
        }
    }
    blocks.persist(level)
    if (lasting) blocks.checkpoint() else blocks.localCheckpoint()
    new Factors(blocks, problem, Some(messages))
  }
}

private[als] object HalfIteration {

  private def solve(
      problem: Problem,
      base: Option[Array[Float]],
      block: InBlock,
      sent: Iterator[(Int, Message)],
      previous: Option[Array[Float]]
  ): Iterator[Solved] =
    Iterator.single(Solved(problem, base, block, sent.map(_._2), previous))

  /** A block's loss and, of implicit feedback, its part of the base. */
  def sums(problem: Problem, solved: Solved): (Double, Array[Float]) = {
    val k = problem.rank
    val base = new Array[Float](if (problem.implicitly) k * k else 0)
    if (problem.implicitly)
      Mkl.blas.ssyrk("U", "N", k, solved.factors.length / k, 1f, solved.factors, k, 0f, base, k)
    (solved.loss, base)
  }

  def total(parts: Array[Array[Float]]): Array[Float] =
    Counts.floats(parts.head.length)(i => parts.map(_(i).toDouble).sum.toFloat)

  /** MLlib's. */
  private def random(block: Int, ids: Array[Int], rank: Int, seed: Long): Array[Float] = {
    val draw = SparkInternals.random(byteswap64(seed ^ block))
    val factors = new Array[Float](Math.multiplyExact(ids.length, rank))
    for (i <- ids.indices) {
      val values = Array.fill(rank)(draw.nextGaussian().toFloat)
      val length = Mkl.blas.snrm2(rank, values, 1)
      for (j <- 0 until rank) factors(i * rank + j) = values(j) * (1f / length)
    }
    factors
  }
}
