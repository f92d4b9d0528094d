package insitu.recommend.als

import java.nio.{ByteBuffer, ByteOrder}
import java.util.Arrays

/** Ratings as three columns; a row is one side's id, a column the other's. */
private[als] final case class Ratings(rows: Array[Int], columns: Array[Int], values: Array[Float]) {
  def count: Int = rows.length

  def transposed: Ratings = Ratings(columns, rows, values)

  /** The ratings of each of `blocks` blocks of rows, packed; blocks without any are left out. */
  def split(blocks: Int): Iterator[(Int, Array[Byte])] = OffHeap.using { memory =>
    val (starts, grouped) = (memory.words(blocks + 1L), memory.words(Ratings.Words.toLong * count))
    val error = Native.splitRatings(
      count, memory.copy(rows), memory.copy(columns), memory.copy(values), blocks, starts, grouped
    )
    Native.check(error)
    val bounds = OffHeap.ints(starts, blocks + 1)
    val parts = (0 until blocks).filter(b => bounds(b) < bounds(b + 1)).map { b =>
      val at = grouped + Ratings.Words.toLong * bounds(b) * Packed.WordBytes
      b -> OffHeap.packed(at, Ratings.Words.toLong * (bounds(b + 1) - bounds(b)))
    }
    parts.iterator
  }
}

private[als] object Ratings {

  /** Words of a rating: row, column and value. */
  val Words = 3
}

/** Numbers as bytes: Java's serialization writes arrays of other types number by number. */
private[als] object Packed {
  val WordBytes = 4

  def buffer(words: Long): ByteBuffer = reading(new Array[Byte](size(words * WordBytes)))

  /** The size of an array.
    *
    * @throws IllegalArgumentException Java's arrays hold no more than 2^31 - 1.
    */
  def size(elements: Long): Int = {
    if (elements > Int.MaxValue)
      throw new IllegalArgumentException(
        s"numUserBlocks, numItemBlocks: a block needs an array of $elements elements, and Java's hold ${Int.MaxValue} at " +
          "most; set larger numbers of blocks, and divide the ratings into more partitions"
      )
    elements.toInt
  }

  def reading(bytes: Array[Byte]): ByteBuffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
}

private[als] object Blocks {

  /** The block that an id belongs to, 0 until `blocks`: MLlib's, so that random factors are MLlib's too. */
  def of(id: Int, blocks: Int): Int = Math.floorMod(id, blocks)
}

/** One block of rows in compressed form: who they are, which columns they rated, and how.
  *
  * @param ids of the rows, ascending.
  * @param starts ratings of row i are `starts(i) until starts(i + 1)`.
  * @param sources of each rating, its column's place in the table of factors that this block is sent.
  * @param ratings the values, by row and then by source.
  * @param columns ids of the table's columns, by the column's block and then ascending.
  * @param tableStarts columns of block b are `tableStarts(b) until tableStarts(b + 1)` in the table.
  */
private[als] final case class InBlock(
    ids: Array[Int],
    starts: Array[Int],
    sources: Array[Int],
    ratings: Array[Float],
    columns: Array[Int],
    tableStarts: Array[Int]
) {

  /** The ids that this block needs of block `b` of the columns, ascending. */
  def requested(b: Int): Array[Int] = Arrays.copyOfRange(columns, tableStarts(b), tableStarts(b + 1))

  /** The factors that other blocks sent, put together: [columns, rank]. */
  def table(received: Iterator[Message], rank: Int): Array[Float] = {
    val factors = new Array[Float](Packed.size(columns.length.toLong * rank))
    received.foreach { message =>
      Packed.reading(message.factors).asFloatBuffer
        .get(factors, tableStarts(message.from) * rank, message.factors.length / Packed.WordBytes)
    }
    factors
  }
}

private[als] object InBlock {

  /** Compress the ratings of one block of rows, as `Ratings.split` packed them; but for the values of equal pairs, their
    * order does not matter.
    */
  def apply(packed: Iterator[Array[Byte]], columnBlocks: Int): InBlock = {
    val parts = packed.toVector
    val counts = parts.map(_.length / (Ratings.Words * Packed.WordBytes))
    if (parts.isEmpty) new InBlock(Array(), Array(0), Array(), Array(), Array(), new Array(columnBlocks + 1))
    else compress(parts, counts, Packed.size(counts.map(_.toLong).sum), columnBlocks)
  }

  private def compress(parts: Vector[Array[Byte]], counts: Vector[Int], count: Int, columnBlocks: Int): InBlock =
    OffHeap.using { memory =>
      val numbers = Vector.fill(Ratings.Words)(memory.words(count))
      for (((part, size), start) <- parts.zip(counts).zip(counts.scanLeft(0)(_ + _)); (column, i) <- numbers.zipWithIndex)
        OffHeap.put(part, i * size, size, column + start.toLong * Packed.WordBytes)
      val Vector(rows, columns, values) = numbers
      val Vector(ids, starts, sources, ratings, table) = Vector.fill(5)(memory.words(count + 1L))
      val (tableStarts, sizes) = (memory.words(columnBlocks + 1L), memory.words(2))
      val error = Native.compressRatings(
        count, rows, columns, values, columnBlocks, ids, starts, sources, ratings, table, tableStarts, sizes
      )
      Native.check(error)
      val Array(rowCount, columnCount) = OffHeap.ints(sizes, 2)
      InBlock(
        ids = OffHeap.ints(ids, rowCount),
        starts = OffHeap.ints(starts, rowCount + 1),
        sources = OffHeap.ints(sources, count),
        ratings = OffHeap.floats(ratings, count),
        columns = OffHeap.ints(table, columnCount),
        tableStarts = OffHeap.ints(tableStarts, columnBlocks + 1)
      )
    }
}
