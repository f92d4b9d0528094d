package insitu.recommend.als

import java.util.Arrays

/** The distinct ones of some ids, and the place of each. */
private[als] sealed abstract class Index {

  /** By block and then ascending. */
  def ids: Array[Int]

  /** Where one of the ids is in `ids`. */
  def place(id: Int): Int
}

private[als] object Index {
  private val Sparse = 8

  def apply(all: Array[Int], blocks: Int): Index = {
    var least = Int.MaxValue
    var most = Int.MinValue
    var i = 0
    while (i < all.length) {
      least = math.min(least, all(i))
      most = math.max(most, all(i))
      i += 1
    }
    val keys = new Keys(least, most, blocks)
    if (keys.count <= Sparse.toLong * all.length + blocks) new Dense(all, keys) else new Sorted(all, keys)
  }

  /** Numbers ids from 0 by block and then ascending, with a number for every id between the least and the greatest. */
  private final class Keys(least: Int, most: Int, blocks: Int) {
    private val first = Math.floorDiv(least, blocks)
    private val stride = Math.floorDiv(most, blocks).toLong - first + 1

    def count: Long = if (most < least) 0 else stride * blocks

    def key(id: Int): Long = Math.floorMod(id, blocks) * stride + (Math.floorDiv(id, blocks) - first)

    def id(key: Long): Int = ((key % stride + first) * blocks + key / stride).toInt
  }

  /** A table of all possible ids. */
  private final class Dense(all: Array[Int], keys: Keys) extends Index {
    private val places = new Array[Int](keys.count.toInt)

    override val ids: Array[Int] = {
      all.foreach(id => places(keys.key(id).toInt) = 1)
      var found = 0
      var key = 0
      val distinct = new Array[Int](math.min(places.length, all.length))
      while (key < places.length) {
        if (places(key) == 1) {
          distinct(found) = keys.id(key)
          places(key) = found
          found += 1
        }
        key += 1
      }
      Arrays.copyOf(distinct, found)
    }

    override def place(id: Int): Int = places(keys.key(id).toInt)
  }

  private final class Sorted(all: Array[Int], keys: Keys) extends Index {
    private val sorted = distinct(Counts.longs(all.length)(i => keys.key(all(i))))

    override val ids: Array[Int] = Counts.ints(sorted.length)(i => keys.id(sorted(i)))

    override def place(id: Int): Int = Arrays.binarySearch(sorted, keys.key(id))
  }

  private def distinct(keys: Array[Long]): Array[Long] = {
    Arrays.sort(keys)
    var kept = 0
    var i = 0
    while (i < keys.length) {
      if (i == 0 || keys(i) != keys(i - 1)) {
        keys(kept) = keys(i)
        kept += 1
      }
      i += 1
    }
    Arrays.copyOf(keys, kept)
  }
}
