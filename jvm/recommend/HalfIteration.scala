package insitu.recommend.als

import scala.util.hashing.byteswap64

import org.apache.spark.ml.recommendation.SparkInternals
import org.apache.spark.rdd.RDD
import org.apache.spark.storage.StorageLevel

/** A side: the rows' ratings by blocks, and where their factors go.
  *
  * @param receivers blocks of the other side.
  */
private[als] final case class Side(ratings: RDD[InBlock], routes: RDD[Route], receivers: Int)

/** One side's factors from the other's.
  *
  * They are cut from their lineage as they are made, so that neither the plan nor the shuffle files grow with the
  * iterations.
  *
  * @param level where they are kept.
  */
private[als] final class HalfIteration(problem: Problem, level: StorageLevel) {

  /** Random factors of length 1: MLlib's for this seed and these blocks. */
  def random(side: Side, seed: Long): Factors = {
    val rank = problem.rank
    val blocks = side.ratings.mapPartitionsWithIndex { (number, block) =>
      val ids = block.next().ids
      Iterator.single(Solved(ids, HalfIteration.random(number, ids, rank, seed), Double.NaN))
    }
    new Factors(blocks.persist(level), side.routes, side.receivers, problem)
  }

  /** Solve the rows of one side.
    *
    * @param senders the other side's factors, which were sent.
    * @param previous the rows' last factors.
    * @param lasting whether the result goes to the checkpoint directory.
    */
  def solve(senders: Factors, side: Side, previous: Option[Factors], lasting: Boolean): Factors = {
    val (problem, base) = (this.problem, senders.base)
    val blocks = previous.filter(_ => problem.conjugateUpTo > 0) match {
      case None =>
        side.ratings.zipPartitions(senders.messages)((block, sent) =>
          HalfIteration.solve(problem, base, block.next(), sent, None)
        )
      case Some(last) =>
        side.ratings.zipPartitions(senders.messages, last.blocks) { (block, sent, start) =>
          HalfIteration.solve(problem, base, block.next(), sent, Some(start.next().factors))
        }
    }
    blocks.persist(level)
    if (lasting) blocks.checkpoint() else blocks.localCheckpoint()
    new Factors(blocks, side.routes, side.receivers, problem)
  }
}

private object HalfIteration {

  private def solve(
      problem: Problem,
      base: Option[Array[Float]],
      block: InBlock,
      sent: Iterator[(Int, Message)],
      previous: Option[Array[Float]]
  ): Iterator[Solved] = Iterator.single(Solved(problem, base, block, sent.map(_._2), previous))

  /** MLlib's. */
  private def random(block: Int, ids: Array[Int], rank: Int, seed: Long): Array[Float] = {
    val draw = SparkInternals.random(byteswap64(seed ^ block))
    val factors = new Array[Float](Packed.size(ids.length.toLong * rank))
    for (i <- ids.indices) {
      val values = Array.fill(rank)(draw.nextGaussian().toFloat)
      val length = Mkl.blas.snrm2(rank, values, 1)
      for (j <- 0 until rank) factors(i * rank + j) = values(j) * (1f / length)
    }
    factors
  }
}
