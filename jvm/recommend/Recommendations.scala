package insitu.recommend.als

import java.util.Arrays

import org.apache.spark.HashPartitioner
import org.apache.spark.broadcast.Broadcast
import org.apache.spark.rdd.RDD
import org.apache.spark.sql.types._
import org.apache.spark.sql.{DataFrame, Row}

/** The items with the highest scores for each user.
  *
  * Items go to the executors in blocks, each read by a task as long as it needs it; users are scored a group at a time
  * by a matrix product, of which the best stay.
  */
object Recommendations {
  private val BlockFloats = 1 << 22
  private val TileItems = 2048
  private val GroupUsers = 64

  private final case class Block(ids: Array[Int], factors: Array[Float])

  /** The best items of each user.
    *
    * @param users `id` and `features` [rank] of the users.
    * @param items the same of the items.
    * @param count items for each user; fewer where there are not as many.
    * @param seen pairs of user and item ids, as integers, that are left out; null for none.
    * @param user name of the users' column in the result.
    * @param item name of the items' field in it.
    * @return a row for each user: its id, and `recommendations`, an array of structs of item and `rating`, best first.
    */
  def top(users: DataFrame, items: DataFrame, rank: Int, count: Int, seen: DataFrame, user: String, item: String): DataFrame = {
    val context = users.sparkSession.sparkContext
    val (blocks, sizes) = factors(items).toLocalIterator.grouped(math.max(1, BlockFloats / rank)).map { group =>
      context.broadcast(Block(group.map(_._1).toArray, Array.concat(group.map(_._2): _*))) -> group.length.toLong
    }.toArray.unzip
    val most = math.min(count, sizes.sum).toInt
    val best =
      if (seen == null) factors(users).mapPartitions(_.grouped(GroupUsers).flatMap(new Scorer(rank, most, blocks).best(_, None)))
      else unseen(factors(users), seen, rank, most, blocks)
    val entry = StructType(Seq(StructField(item, IntegerType), StructField("rating", FloatType)))
    val schema = StructType(Seq(StructField(user, IntegerType), StructField("recommendations", ArrayType(entry))))
    users.sparkSession.createDataFrame(best.map { case (id, top) => Row(id, top.map(Row.fromTuple(_)).toSeq) }, schema)
  }

  private def factors(table: DataFrame): RDD[(Int, Array[Float])] =
    table.select("id", "features").rdd.map(row => row.getInt(0) -> row.getSeq[Float](1).toArray)

  private def unseen(
      users: RDD[(Int, Array[Float])],
      seen: DataFrame,
      rank: Int,
      count: Int,
      items: Array[Broadcast[Block]]
  ): RDD[(Int, Array[(Int, Float)])] = {
    val blocks = users.getNumPartitions
    val own = users.map(user => Blocks.of(user._1, blocks) -> user).partitionBy(new HashPartitioner(blocks))
    val pairs = seen.rdd.mapPartitions { rows =>
      val (users, items) = rows.map(row => row.getInt(0) -> row.getInt(1)).toArray.unzip
      Iterator.single(Ratings(users, items, new Array[Float](users.length)))
    }
    own.zipPartitions(Sides.byRow(pairs, blocks, 1)) { (users, seen) =>
      val scorer = new Scorer(rank, count, items)
      val known = Some(seen.next())
      users.map(_._2).grouped(GroupUsers).flatMap(scorer.best(_, known))
    }
  }

  private final class Scorer(rank: Int, count: Int, blocks: Array[Broadcast[Block]]) {
    private val scores = new Array[Float](GroupUsers * TileItems)

    def best(users: Seq[(Int, Array[Float])], seen: Option[InBlock]): Seq[(Int, Array[(Int, Float)])] = {
      val group = Array.concat(users.map(_._2): _*)
      val best = users.map { case (id, _) => new UserBest(count, seen.fold(Array.empty[Int])(seenBy(_, id))) }.toArray
      blocks.foreach(block => offer(block.value, group, best))
      users.map(_._1).zip(best.map(_.drain()))
    }

    private def offer(block: Block, group: Array[Float], best: Array[UserBest]): Unit =
      for (first <- block.ids.indices by TileItems) {
        val tile = math.min(TileItems, block.ids.length - first)
        Mkl.blas.sgemm("T", "N", tile, best.length, rank, 1f, block.factors, first * rank, rank, group, 0, rank, 0f,
          scores, 0, tile)
        for (user <- best.indices) best(user).offer(block.ids, first, tile, scores, user * tile)
      }

    /** The items that a user has seen, ascending. */
    private def seenBy(block: InBlock, user: Int): Array[Int] = {
      val row = Arrays.binarySearch(block.ids, user)
      if (row < 0) Array.empty
      else Counts.ints(block.starts(row + 1) - block.starts(row))(i => block.columns(block.sources(block.starts(row) + i)))
    }
  }

  private final class UserBest(count: Int, seen: Array[Int]) {
    private val best = new Best(count)

    def offer(ids: Array[Int], first: Int, tile: Int, scores: Array[Float], at: Int): Unit = {
      var threshold = best.threshold
      var i = 0
      while (i < tile) {
        if (scores(at + i) >= threshold && Arrays.binarySearch(seen, ids(first + i)) < 0) {
          best.offer(ids(first + i), scores(at + i))
          threshold = best.threshold
        }
        i += 1
      }
    }

    def drain(): Array[(Int, Float)] = best.drain()
  }
}
