package insitu.recommend.als

/** Arrays of primitives made without boxing, as Scala 2.12's own collections do not. */
private[als] object Counts {
  def ints(size: Int)(value: Int => Int): Array[Int] = {
    val made = new Array[Int](size)
    var i = 0
    while (i < size) { made(i) = value(i); i += 1 }
    made
  }

  def floats(size: Int)(value: Int => Float): Array[Float] = {
    val made = new Array[Float](size)
    var i = 0
    while (i < size) { made(i) = value(i); i += 1 }
    made
  }
}
