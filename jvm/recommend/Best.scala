package insitu.recommend.als

/** The `limit` best of all candidates that are offered, by score and then by the smaller id: a heap, the worst on top. */
private[als] final class Best(limit: Int) {
  private val ids = new Array[Int](limit)
  private val scores = new Array[Float](limit)
  private var size = 0

  /** No candidate with a lower score gets in. */
  def threshold: Float = if (size < limit) Float.NegativeInfinity else scores(0)

  def offer(id: Int, score: Float): Unit =
    if (size < limit) {
      size += 1
      rise(size - 1, id, score)
    } else if (isWorse(ids(0), scores(0), id, score)) sink(id, score)

  /** Takes all out, the best first. */
  def drain(): Array[(Int, Float)] = {
    val taken = new Array[(Int, Float)](size)
    while (size > 0) {
      taken(size - 1) = (ids(0), scores(0))
      size -= 1
      if (size > 0) sink(ids(size), scores(size))
    }
    taken
  }

  private def isWorse(id: Int, score: Float, thanId: Int, thanScore: Float): Boolean =
    score < thanScore || score == thanScore && id > thanId

  private def rise(from: Int, id: Int, score: Float): Unit = {
    var i = from
    while (i > 0 && isWorse(id, score, ids((i - 1) / 2), scores((i - 1) / 2))) {
      put(i, ids((i - 1) / 2), scores((i - 1) / 2))
      i = (i - 1) / 2
    }
    put(i, id, score)
  }

  private def sink(id: Int, score: Float): Unit = {
    var i = 0
    var child = worseChild(0)
    while (child < size && isWorse(ids(child), scores(child), id, score)) {
      put(i, ids(child), scores(child))
      i = child
      child = worseChild(i)
    }
    put(i, id, score)
  }

  private def worseChild(i: Int): Int = {
    val left = 2 * i + 1
    if (left + 1 < size && isWorse(ids(left + 1), scores(left + 1), ids(left), scores(left))) left + 1 else left
  }

  private def put(i: Int, id: Int, score: Float): Unit = {
    ids(i) = id
    scores(i) = score
  }
}
