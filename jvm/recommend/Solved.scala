package insitu.recommend.als

/** A block's rows: their ids, their factors, [rows, rank], flat, and the sum of their squared errors.
  *
  * The error of implicit feedback is that of all pairs of row and column, by confidence.
  */
private[als] final case class Solved(ids: Array[Int], factors: Array[Float], loss: Double)

private[als] object Solved {

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
    else Native.solve(problem, base, block, sent, previous)
}
