package insitu.recommend.als

import org.apache.spark.ml.recommendation.SparkInternals
import org.netlib.util.intW

/** A block's rows: their ids, their factors, [rows, rank], flat, and the sum of their squared errors.
  *
  * The error of implicit feedback is that of all pairs of row and column, by confidence.
  */
private[als] final case class Solved(ids: Array[Int], factors: Array[Float], loss: Double)

/** Solves the rows of a block one after the other, in single precision; for one thread.
  *
  * Legend: k rank, n ratings of a row, m those that count for the regularisation, F [k, n] the factors of the columns
  * that a row rated, C [n, n] their confidences, A = base + F C F' + reg m I the normal matrix, b = F w the right side.
  *
  * @param base of implicit feedback, the sum over all columns y of y y', [k, k].
  */
private[als] class RowSolver(protected val problem: Problem, base: Option[Array[Float]]) {
  import RowSolver._

  protected val rank: Int = problem.rank
  protected val normal = new Array[Float](rank * rank)
  protected val columns = new Array[Float](Patch * rank)
  protected val confidence = new Array[Float](Patch)
  protected val weight = new Array[Float](Patch)
  protected val right = new Array[Float](rank)
  private val inner = new Array[Float](rank * rank)
  private val info = new intW(0)
  protected val (blas, lapack) = (Mkl.blas, Mkl.lapack)

  /** Solve all rows of a block.
    *
    * @param table factors of the columns, [columns, rank].
    * @param previous the rows' last factors, for solvers that start from them.
    */
  def solve(block: InBlock, table: Array[Float], previous: Option[Array[Float]]): Solved = {
    val factors = previous.fold(new Array[Float](Math.multiplyExact(block.ids.length, rank)))(_.clone())
    var loss = 0.0
    var i = 0
    while (i < block.ids.length) {
      loss += row(block, block.starts(i), block.starts(i + 1), table, factors, i * rank)
      i += 1
    }
    Solved(block.ids, factors, loss)
  }

  /** Solve the row with these ratings into `factors` from `at` on; gives its squared error. */
  protected def row(block: InBlock, from: Int, until: Int, table: Array[Float], factors: Array[Float], at: Int): Double =
    if (base.isEmpty && until - from < rank) dual(block, from, until, table, factors, at)
    else direct(block, from, until, table, factors, at)

  /** x = F (F'F + reg n I)⁻¹ r, which is A⁻¹ b by a system of n instead of k. */
  private def dual(block: InBlock, from: Int, until: Int, table: Array[Float], factors: Array[Float], at: Int): Double = {
    val n = until - from
    val shrinkage = problem.reg * n
    gather(block, from, n, table)
    blas.ssyrk("U", "T", n, rank, 1f, columns, 0, rank, 0f, inner, 0, n)
    addToDiagonal(inner, n, shrinkage)
    solvePositive(inner, n, weight, 0)
    blas.sgemv("N", rank, n, 1f, columns, 0, rank, weight, 0, 1, 0f, factors, at, 1)
    shrinkage.toDouble * shrinkage * dot(weight, 0, weight, 0, n) // what is left of r is reg n times the dual solution
  }

  protected def direct(
      block: InBlock,
      from: Int,
      until: Int,
      table: Array[Float],
      factors: Array[Float],
      at: Int
  ): Double = {
    base.fold(java.util.Arrays.fill(normal, 0f))(_.copyToArray(normal))
    java.util.Arrays.fill(right, 0f)
    var start = from
    while (start < until) {
      val n = math.min(Patch, until - start)
      gather(block, start, n, table)
      blas.sgemv("N", rank, n, 1f, columns, 0, rank, weight, 0, 1, 1f, right, 0, 1)
      if (problem.implicitly) scaleColumns(n)
      blas.ssyrk("U", "N", rank, n, 1f, columns, 0, rank, 1f, normal, 0, rank)
      start += n
    }
    val shrinkage = problem.reg * counted(block, from, until)
    addToDiagonal(normal, rank, shrinkage)
    System.arraycopy(right, 0, factors, at, rank)
    solveNormal(factors, at)
    alone(block, from, until) - dot(right, 0, factors, at, rank) - shrinkage * dot(factors, at, factors, at, rank)
  }

  /** Solve `normal` for the right side in `factors` from `at` on, in its place. */
  protected def solveNormal(factors: Array[Float], at: Int): Unit = solvePositive(normal, rank, factors, at)

  private def solvePositive(matrix: Array[Float], order: Int, right: Array[Float], at: Int): Unit = {
    if (order <= SmallCholesky.Largest) info.`val` = if (SmallCholesky.solve(matrix, order, right, at)) 0 else 1
    else lapack.sposv("U", order, 1, matrix, 0, order, right, at, order, info)
    if (info.`val` != 0)
      throw new IllegalArgumentException(
        s"regParam: ${problem.reg} leaves normal equations that single precision cannot solve; set a larger one"
      )
  }

  /** Fill `columns`, `confidence` and `weight` for n ratings. */
  protected def gather(block: InBlock, from: Int, n: Int, table: Array[Float]): Unit = {
    var i = 0
    while (i < n) {
      System.arraycopy(table, block.sources(from + i) * rank, columns, i * rank, rank)
      val rating = block.ratings(from + i)
      confidence(i) = problem.confidence(rating)
      weight(i) = problem.weight(rating)
      i += 1
    }
  }

  private def scaleColumns(n: Int): Unit = {
    var i = 0
    while (i < n) {
      val scale = math.sqrt(confidence(i)).toFloat
      var j = i * rank
      while (j < (i + 1) * rank) { columns(j) *= scale; j += 1 }
      i += 1
    }
  }

  protected def counted(block: InBlock, from: Int, until: Int): Int = {
    var count = 0
    var i = from
    while (i < until) { if (problem.counts(block.ratings(i))) count += 1; i += 1 }
    count
  }

  protected def alone(block: InBlock, from: Int, until: Int): Double = {
    var sum = 0.0
    var i = from
    while (i < until) { sum += problem.alone(block.ratings(i)); i += 1 }
    sum
  }

  private def addToDiagonal(matrix: Array[Float], order: Int, value: Float): Unit = {
    var i = 0
    while (i < order) { matrix(i * order + i) += value; i += 1 }
  }
}

private[als] object RowSolver {

  /** Ratings whose columns are gathered together: at rank 128 half a megabyte, which second-level caches hold. */
  val Patch = 1024

  def apply(problem: Problem, base: Option[Array[Float]]): RowSolver =
    if (problem.nonnegative) new NonnegativeSolver(problem, base)
    else if (problem.conjugateGradient) new ConjugateGradient(problem, base)
    else new RowSolver(problem, base)

  /** In double precision, by four sums that do not wait for each other. */
  def dot(a: Array[Float], atA: Int, b: Array[Float], atB: Int, n: Int): Double = {
    var s0, s1, s2, s3 = 0.0
    var i = 0
    while (i + 3 < n) {
      s0 += a(atA + i).toDouble * b(atB + i)
      s1 += a(atA + i + 1).toDouble * b(atB + i + 1)
      s2 += a(atA + i + 2).toDouble * b(atB + i + 2)
      s3 += a(atA + i + 3).toDouble * b(atB + i + 3)
      i += 4
    }
    while (i < n) { s0 += a(atA + i).toDouble * b(atB + i); i += 1 }
    s0 + s1 + s2 + s3
  }
}

/** Least squares under x >= 0, by MLlib's own solver in double precision. */
private[als] final class NonnegativeSolver(problem: Problem, base: Option[Array[Float]])
    extends RowSolver(problem, base) {
  private val full = new Array[Double](rank * rank)

  override protected def row(
      block: InBlock,
      from: Int,
      until: Int,
      table: Array[Float],
      factors: Array[Float],
      at: Int
  ): Double = direct(block, from, until, table, factors, at)

  override protected def solveNormal(factors: Array[Float], at: Int): Unit = {
    for (i <- 0 until rank; j <- 0 to i) {
      full(i * rank + j) = normal(i * rank + j)
      full(j * rank + i) = normal(i * rank + j)
    }
    val solution = SparkInternals.nonnegative(full, Array.tabulate(rank)(right(_).toDouble))
    for (i <- 0 until rank) factors(at + i) = solution(i).toFloat
  }
}

/** A few steps of conjugate gradient from a row's last factors (Takács, Pilászy, Tikk 2011,
  * doi:10.1145/2043932.2043987): n k operations a step instead of n k² or k n² for a system.
  */
private[als] final class ConjugateGradient(problem: Problem, base: Option[Array[Float]])
    extends RowSolver(problem, base) {
  import RowSolver.dot

  private val residual = new Array[Float](rank)
  private val direction = new Array[Float](rank)
  private val image = new Array[Float](rank)
  private val products = new Array[Float](RowSolver.Patch)

  override protected def row(
      block: InBlock,
      from: Int,
      until: Int,
      table: Array[Float],
      factors: Array[Float],
      at: Int
  ): Double = if (until - from > RowSolver.Patch) direct(block, from, until, table, factors, at)
  else {
    val n = until - from
    val shrinkage = problem.reg * counted(block, from, until)
    gather(block, from, n, table)
    blas.sgemv("N", rank, n, 1f, columns, 0, rank, weight, 0, 1, 0f, right, 0, 1)
    multiply(factors, at, n, shrinkage)
    var i = 0
    while (i < rank) { residual(i) = right(i) - image(i); direction(i) = residual(i); i += 1 }
    var length = dot(residual, 0, residual, 0, rank)
    var step = 0
    while (step < ConjugateGradient.Steps && length > ConjugateGradient.Enough * dot(right, 0, right, 0, rank)) {
      multiply(direction, 0, n, shrinkage)
      val rate = (length / dot(direction, 0, image, 0, rank)).toFloat
      i = 0
      while (i < rank) {
        factors(at + i) += rate * direction(i)
        residual(i) -= rate * image(i)
        i += 1
      }
      val left = dot(residual, 0, residual, 0, rank)
      val turn = (left / length).toFloat
      i = 0
      while (i < rank) { direction(i) = residual(i) + turn * direction(i); i += 1 }
      length = left
      step += 1
    }
    // A x = b - residual, so no product is needed for x' A x.
    alone(block, from, until) - dot(right, 0, factors, at, rank) - dot(residual, 0, factors, at, rank) -
      shrinkage * dot(factors, at, factors, at, rank)
  }

  /** `image` becomes A times the vector in `vector` from `at` on. */
  private def multiply(vector: Array[Float], at: Int, n: Int, shrinkage: Float): Unit = {
    blas.sgemv("T", rank, n, 1f, columns, 0, rank, vector, at, 1, 0f, products, 0, 1)
    var i = 0
    while (i < n) { products(i) *= confidence(i); i += 1 }
    i = 0
    while (i < rank) { image(i) = shrinkage * vector(at + i); i += 1 }
    base.foreach(blas.ssymv("U", rank, 1f, _, 0, rank, vector, at, 1, 1f, image, 0, 1))
    blas.sgemv("N", rank, n, 1f, columns, 0, rank, products, 0, 1, 1f, image, 0, 1)
  }
}

private[als] object ConjugateGradient {
  val Steps = 3

  /** The squared residual over the squared right side at which single precision has no more to give. */
  val Enough = 1e-12
}
