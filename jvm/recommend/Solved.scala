package insitu.recommend.als

import org.apache.spark.unsafe.Platform

/** A block's rows: their ids, their factors, [rows, rank], flat, and the sum of their squared errors.
  *
  * The error of implicit feedback is that of all pairs of row and column, by confidence.
  */
private[als] final case class Solved(ids: Array[Int], factors: Array[Float], loss: Double)

private[als] object Solved {

  /** The vectors of the compiled code read up to one beyond the factors of the columns. */
  private val Beyond = 16

  /** Solve the rows of a block.
    *
    * @param base of implicit feedback, the sum over all columns y of y y', [rank, rank], upper triangle by columns.
    * @param sent the factors of the block's columns.
    * @param previous the rows' last factors, for solvers that start from them.
    * @throws IllegalArgumentException single precision cannot solve a row's normal equations.
    */
  def apply(
      problem: Problem,
      base: Option[Array[Float]],
      block: InBlock,
      sent: Iterator[Message],
      previous: Option[Array[Float]]
  ): Solved =
    if (problem.nonnegative) new NonnegativeSolver(problem, base).solve(block, block.table(sent, problem.rank))
    else natively(problem, base, block, sent, previous)

  private def natively(
      problem: Problem,
      base: Option[Array[Float]],
      block: InBlock,
      sent: Iterator[Message],
      previous: Option[Array[Float]]
  ): Solved = OffHeap.using { memory =>
    val rank = problem.rank
    val size = Packed.size(block.ids.length.toLong * rank)
    val table = memory.words(block.columns.length.toLong * rank + Beyond)
    sent.foreach { message =>
      val at = table + block.tableStarts(message.from).toLong * rank * Packed.WordBytes
      OffHeap.put(message.factors, 0, message.factors.length / Packed.WordBytes, at)
    }
    val factors = memory.copy(previous.getOrElse(new Array[Float](size)))
    val loss = memory.allocate(java.lang.Double.BYTES)
    val error = Native.solveRows(
      rank, problem.reg, problem.implicitly, problem.alpha, problem.conjugateUpTo,
      block.ids.length, base.fold(0L)(memory.copy), memory.copy(block.starts), memory.copy(block.sources),
      memory.copy(block.ratings), table, factors, loss
    )
    Native.check(error)
    Solved(block.ids, OffHeap.floats(factors, size), Platform.getDouble(null, loss))
  }
}
