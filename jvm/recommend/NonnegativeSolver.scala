package insitu.recommend.als

import org.apache.spark.ml.recommendation.SparkInternals

/** Least squares under x >= 0, row by row, by MLlib's own solver in double precision; for one thread.
  *
  * Legend: k rank, F [k, n] the factors of the columns that a row rated, scaled by the roots of their confidences;
  * A = base + F F' + reg m I the normal matrix, m the ratings that count for the regularisation, b the right side.
  *
  * @param base as Solved's.
  */
private[als] final class NonnegativeSolver(problem: Problem, base: Option[Array[Float]]) {
  import NonnegativeSolver.Patch

  private val rank = problem.rank
  private val normal = new Array[Float](rank * rank)
  private val columns = new Array[Float](Patch * rank)
  private val weight = new Array[Float](Patch)
  private val right = new Array[Float](rank)
  private val full = new Array[Double](rank * rank)

  /** @param table factors of the columns, [columns, rank]. */
  def solve(block: InBlock, table: Array[Float]): Solved = {
    val factors = new Array[Float](Packed.size(block.ids.length.toLong * rank))
    var loss = 0.0
    for (i <- block.ids.indices) loss += row(block, block.starts(i), block.starts(i + 1), table, factors, i * rank)
    Solved(block.ids, factors, loss)
  }

  /** Solve the row with these ratings into `factors` from `at` on; gives its squared error. */
  private def row(block: InBlock, from: Int, until: Int, table: Array[Float], factors: Array[Float], at: Int): Double = {
    base.fold(java.util.Arrays.fill(normal, 0f))(_.copyToArray(normal))
    java.util.Arrays.fill(right, 0f)
    for (start <- from until until by Patch) addProducts(block, start, math.min(Patch, until - start), table)
    val ratings = block.ratings.slice(from, until)
    val shrinkage = problem.reg * ratings.count(problem.counts)
    val solution = solveNormal(shrinkage)
    var loss = ratings.map(problem.alone(_).toDouble).sum
    for (i <- 0 until rank) {
      factors(at + i) = solution(i).toFloat
      loss -= solution(i) * (right(i) + shrinkage * solution(i)) // x' A x = b' x, also where x >= 0 binds
    }
    loss
  }

  private def addProducts(block: InBlock, from: Int, n: Int, table: Array[Float]): Unit = {
    for (i <- 0 until n) {
      System.arraycopy(table, block.sources(from + i) * rank, columns, i * rank, rank)
      weight(i) = problem.weight(block.ratings(from + i))
    }
    Mkl.blas.sgemv("N", rank, n, 1f, columns, 0, rank, weight, 0, 1, 1f, right, 0, 1)
    for (i <- 0 until n) Mkl.blas.sscal(rank, math.sqrt(problem.confidence(block.ratings(from + i))).toFloat, columns, i * rank, 1)
    Mkl.blas.ssyrk("U", "N", rank, n, 1f, columns, 0, rank, 1f, normal, 0, rank)
  }

  private def solveNormal(shrinkage: Float): Array[Double] = {
    for (i <- 0 until rank; j <- 0 to i) {
      full(i * rank + j) = normal(i * rank + j)
      full(j * rank + i) = normal(i * rank + j)
    }
    for (i <- 0 until rank) full(i * rank + i) += shrinkage
    SparkInternals.nonnegative(full, right.map(_.toDouble))
  }
}

private[als] object NonnegativeSolver {

  /** Ratings whose columns are gathered together: at rank 128 half a megabyte, which second-level caches hold. */
  val Patch = 1024
}
