package insitu.recommend.als

import java.util.Arrays

import org.apache.spark.HashPartitioner
import org.apache.spark.rdd.{PartitionPruningRDD, RDD}

/** Factors that a block of one side sends to a block of the other: [requested ids, rank], packed. */
private[als] final case class Message(from: Int, factors: Array[Byte])

/** Where a block's factors go: for each block of the other side, the places of the rows that it needs.
  *
  * @param sender the block's number.
  */
private[als] final case class Route(sender: Int, places: Array[Array[Int]]) {

  /** What each receiver is sent. */
  def messages(factors: Array[Float], rank: Int): Iterator[(Int, Message)] =
    places.indices.iterator.map { receiver =>
      val packed = Packed.buffer(places(receiver).length.toLong * rank)
      val floats = packed.asFloatBuffer
      places(receiver).foreach(place => floats.put(factors, place * rank, rank))
      receiver -> Message(sender, packed.array)
    }
}

/** The blocks of users or of items; block b is the one element of partition b. */
private[als] object Sides {

  /** The ratings by row, in `blocks` blocks. */
  def byRow(ratings: RDD[Ratings], blocks: Int, columnBlocks: Int): RDD[InBlock] =
    compress(ratings.flatMap(_.split(blocks)).partitionBy(new HashPartitioner(blocks)), columnBlocks)

  /** The ratings by user and by item, from one pass over them and one shuffle. */
  def byUserAndItem(ratings: RDD[Ratings], userBlocks: Int, itemBlocks: Int): (RDD[InBlock], RDD[InBlock]) = {
    val packed = ratings
      .flatMap { part =>
        part.split(userBlocks) ++ part.transposed.split(itemBlocks).map { case (b, items) => (userBlocks + b, items) }
      }
      .partitionBy(new HashPartitioner(userBlocks + itemBlocks))
    val users = PartitionPruningRDD.create(packed, _ < userBlocks)
    val items = PartitionPruningRDD.create(packed, _ >= userBlocks)
    (compress(users, itemBlocks), compress(items, userBlocks))
  }

  private def compress(packed: RDD[(Int, Array[Byte])], columnBlocks: Int): RDD[InBlock] =
    packed.mapPartitions(parts => Iterator.single(InBlock(parts.map(_._2), columnBlocks)))

  /** Which of their factors the blocks of `from` send to those of `to`. */
  def routes(from: RDD[InBlock], to: RDD[InBlock]): RDD[Route] = {
    val (senders, receivers) = (from.getNumPartitions, to.getNumPartitions)
    val requests = to
      .mapPartitionsWithIndex { (receiver, blocks) =>
        blocks.flatMap(block => Iterator.tabulate(senders)(b => b -> (receiver -> block.requested(b))))
      }
      .partitionBy(new HashPartitioner(senders))
    from
      .zipPartitions(requests) { (blocks, wanted) =>
        val block = blocks.next()
        val places = new Array[Array[Int]](receivers)
        wanted.foreach { case (_, (receiver, ids)) => places(receiver) = placesOf(block, ids) }
        Iterator.single(places)
      }
      .mapPartitionsWithIndex((sender, places) => places.map(Route(sender, _)))
  }

  /** The places of some ids among a block's. */
  private def placesOf(block: InBlock, ids: Array[Int]): Array[Int] =
    Counts.ints(ids.length)(i => Arrays.binarySearch(block.ids, ids(i)))
}
