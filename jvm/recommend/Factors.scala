package insitu.recommend.als

import scala.collection.JavaConverters._

import org.apache.spark.HashPartitioner
import org.apache.spark.ml.recommendation.SparkInternals
import org.apache.spark.rdd.RDD
import org.apache.spark.util.CollectionAccumulator

/** A block's squared error and, of implicit feedback, the sum over its rows x of x x', [k, k], upper triangle. */
private[als] final case class Sums(loss: Double, products: Array[Float])

/** The factors of one side. They are not there before `send` or `keep`.
  *
  * @param blocks block b is the one element of partition b.
  * @param routes where they go.
  * @param receivers blocks of the other side.
  */
private[als] final class Factors(val blocks: RDD[Solved], routes: RDD[Route], receivers: Int, problem: Problem) {
  private val told = blocks.sparkContext.collectionAccumulator[(Int, Sums)]
  private var sums = Seq.empty[Sums]

  /** What the other side's blocks are sent. */
  val messages: RDD[(Int, Message)] = Factors.messages(blocks, routes, receivers, problem, told)

  /** Compute them and send them, in one stage: the messages wait in its shuffle files. */
  def send(): Unit = {
    SparkInternals.runMapStage(messages)
    SparkInternals.cutLineage(blocks)
    sums = told.value.asScala.toMap.values.toSeq // a block that was computed twice tells the same twice
  }

  /** Compute them. */
  def keep(): Unit = {
    val problem = this.problem
    sums = blocks.sparkContext.runJob(blocks, (block: Iterator[Solved]) => Factors.sums(problem, block.next()))
  }

  def loss: Double = sums.map(_.loss).sum

  /** What every row of the other side's normal matrix has of these; None of explicit feedback. */
  def base: Option[Array[Float]] =
    if (problem.implicitly) Some(Factors.total(sums.map(_.products))) else None

  /** Free the memory and disk of the blocks, their messages and their checkpoint. */
  def drop(): Unit = {
    blocks.unpersist(blocking = false)
    SparkInternals.dropShuffle(messages)
    SparkInternals.deleteCheckpoint(blocks)
  }
}

private object Factors {

  private def messages(
      blocks: RDD[Solved],
      routes: RDD[Route],
      receivers: Int,
      problem: Problem,
      told: CollectionAccumulator[(Int, Sums)]
  ): RDD[(Int, Message)] =
    blocks
      .zipPartitions(routes) { (solved, routes) =>
        val (block, route) = (solved.next(), routes.next())
        told.add(route.sender -> sums(problem, block))
        route.messages(block.factors, problem.rank)
      }
      .partitionBy(new HashPartitioner(receivers))

  private def sums(problem: Problem, solved: Solved): Sums = {
    val k = problem.rank
    val products = new Array[Float](if (problem.implicitly) k * k else 0)
    if (problem.implicitly)
      Mkl.blas.ssyrk("U", "N", k, solved.factors.length / k, 1f, solved.factors, k, 0f, products, k)
    Sums(solved.loss, products)
  }

  private def total(parts: Seq[Array[Float]]): Array[Float] =
    Counts.floats(parts.head.length)(i => parts.map(_(i).toDouble).sum.toFloat)
}
