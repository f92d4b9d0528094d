package insitu.recommend.als

import java.nio.{ByteBuffer, ByteOrder}
import java.util.Arrays

/** Ratings as three columns; a row is one side's id, a column the other's. */
private[als] final case class Ratings(rows: Array[Int], columns: Array[Int], values: Array[Float]) {
  def count: Int = rows.length

  def transposed: Ratings = Ratings(columns, rows, values)

  /** The ratings of each of `blocks` blocks of rows, packed; blocks without any are left out. */
  def split(blocks: Int): Iterator[(Int, Array[Byte])] = {
    val block = Counts.ints(count)(i => Blocks.of(rows(i), blocks))
    val starts = Counts.starts(block, blocks)
    val order = Counts.order(block, starts)
    (0 until blocks).iterator.filter(b => starts(b) < starts(b + 1)).map { b =>
      val packed = Packed.buffer(Ratings.Words * (starts(b + 1) - starts(b)))
      (starts(b) until starts(b + 1)).foreach(i => packed.putInt(rows(order(i))))
      (starts(b) until starts(b + 1)).foreach(i => packed.putInt(columns(order(i))))
      (starts(b) until starts(b + 1)).foreach(i => packed.putFloat(values(order(i))))
      b -> packed.array
    }
  }
}

private[als] object Ratings {
  private val Words = 3

  /** All ratings in what `split` gave. */
  def unpack(parts: Seq[Array[Byte]]): Ratings = {
    val counts = parts.map(_.length / (Words * Packed.WordBytes))
    val all = Ratings(new Array[Int](counts.sum), new Array[Int](counts.sum), new Array[Float](counts.sum))
    for (((part, count), start) <- parts.zip(counts).zip(counts.scanLeft(0)(_ + _))) {
      val packed = Packed.reading(part)
      packed.asIntBuffer.get(all.rows, start, count).get(all.columns, start, count)
      packed.position(2 * count * Packed.WordBytes)
      packed.asFloatBuffer.get(all.values, start, count)
    }
    all
  }
}

/** Numbers as bytes: Java's serialization writes arrays of other types number by number. */
private[als] object Packed {
  val WordBytes = 4

  def buffer(words: Int): ByteBuffer = reading(new Array[Byte](Math.multiplyExact(words, WordBytes)))

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
    val factors = new Array[Float](Math.multiplyExact(columns.length, rank))
    received.foreach { message =>
      Packed.reading(message.factors).asFloatBuffer
        .get(factors, tableStarts(message.from) * rank, message.factors.length / Packed.WordBytes)
    }
    factors
  }
}

private[als] object InBlock {

  /** Compress the ratings of one block of rows; but for the values of equal pairs, their order does not matter. */
  def apply(parts: Iterator[Array[Byte]], columnBlocks: Int): InBlock = {
    val all = Ratings.unpack(parts.toVector)
    val rows = Index(all.rows, 1)
    val columns = Index(all.columns, columnBlocks)
    val source = Counts.ints(all.count)(i => columns.place(all.columns(i)))
    // Two stable counting sorts, the last digit first.
    val bySource = Counts.order(source, Counts.starts(source, columns.ids.length))
    val row = Counts.ints(all.count)(i => rows.place(all.rows(bySource(i))))
    val starts = Counts.starts(row, rows.ids.length)
    val byRow = Counts.order(row, starts)
    val order = Counts.ints(all.count)(i => bySource(byRow(i)))
    InBlock(
      ids = rows.ids,
      starts = starts,
      sources = Counts.ints(all.count)(i => source(order(i))),
      ratings = Counts.floats(all.count)(i => all.values(order(i))),
      columns = columns.ids,
      tableStarts = Counts.starts(columns.ids.map(Blocks.of(_, columnBlocks)), columnBlocks)
    )
  }
}
