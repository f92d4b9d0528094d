package insitu.recommend.als

/** Cholesky's factorization where a call of MKL's costs more than the work. */
private[als] object SmallCholesky {

  /** Up to this order MKL's spotrf takes 2 microseconds and more, most of them before it begins. */
  val Largest = 20

  /** Solve a positive definite system in place.
    *
    * @param matrix [order, order], of which the upper triangle by columns is read and overwritten.
    * @param right from `at` on the right side, which becomes the solution.
    * @return whether the matrix was positive definite.
    */
  def solve(matrix: Array[Float], order: Int, right: Array[Float], at: Int): Boolean = {
    var j = 0
    while (j < order) {
      val column = j * order
      var i = 0
      while (i < j) {
        matrix(column + i) = (matrix(column + i) - dot(matrix, i * order, matrix, column, i)) / matrix(i * order + i)
        i += 1
      }
      val pivot = matrix(column + j) - dot(matrix, column, matrix, column, j)
      if (!(pivot > 0)) return false
      matrix(column + j) = math.sqrt(pivot).toFloat
      right(at + j) = (right(at + j) - dot(matrix, column, right, at, j)) / matrix(column + j)
      j += 1
    }
    substituteBack(matrix, order, right, at)
    true
  }

  private def substituteBack(matrix: Array[Float], order: Int, right: Array[Float], at: Int): Unit = {
    var j = order - 1
    while (j >= 0) {
      val column = j * order
      right(at + j) /= matrix(column + j)
      val solved = right(at + j)
      var i = 0
      while (i < j) { right(at + i) -= solved * matrix(column + i); i += 1 }
      j -= 1
    }
  }

  /** Four sums that do not wait for each other. */
  private def dot(a: Array[Float], atA: Int, b: Array[Float], atB: Int, n: Int): Float = {
    var s0, s1, s2, s3 = 0f
    var i = 0
    while (i + 3 < n) {
      s0 += a(atA + i) * b(atB + i)
      s1 += a(atA + i + 1) * b(atB + i + 1)
      s2 += a(atA + i + 2) * b(atB + i + 2)
      s3 += a(atA + i + 3) * b(atB + i + 3)
      i += 4
    }
    while (i < n) { s0 += a(atA + i) * b(atB + i); i += 1 }
    s0 + s1 + s2 + s3
  }
}
