package insitu.recommend.als

import java.util.Arrays

/** Counting sort, and arrays of primitives made without boxing, as Scala 2.12's own collections do not. */
private[als] object Counts {

  /** Where each key's entries start in key order: [keys + 1], the last being their number. */
  def starts(entries: Array[Int], keys: Int): Array[Int] = {
    val ends = new Array[Int](keys + 1)
    entries.foreach(key => ends(key + 1) += 1)
    Arrays.parallelPrefix(ends, (a: Int, b: Int) => a + b)
    ends
  }

  /** The entries' places in key order, stable. */
  def order(entries: Array[Int], starts: Array[Int]): Array[Int] = {
    val next = starts.clone()
    val places = new Array[Int](entries.length)
    var i = 0
    while (i < entries.length) {
      val key = entries(i)
      places(next(key)) = i
      next(key) += 1
      i += 1
    }
    places
  }

  def ints(size: Int)(value: Int => Int): Array[Int] = {
    val made = new Array[Int](size)
    var i = 0
    while (i < size) { made(i) = value(i); i += 1 }
    made
  }

  def longs(size: Int)(value: Int => Long): Array[Long] = {
    val made = new Array[Long](size)
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
