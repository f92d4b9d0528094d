package org.apache.spark.insitu

import java.nio.{ByteBuffer, ByteOrder}

import org.apache.spark.SparkEnv
import org.apache.spark.storage.{BlockId, StorageLevel, TestBlockId}
import org.apache.spark.util.io.ChunkedByteBuffer

import scala.collection.concurrent.TrieMap
import scala.reflect.classTag

/** One worker's part in the all-reduce through Spark's block manager (Dai et al. 2019, arXiv:1804.05839, section 3.3).
  *
  * Every worker owns a slice of the flat vector: it sums all workers' gradients of it, and publishes its weights. The
  * blocks are written in place, step after step: between a `put` and the next one of the same kind all workers must
  * have read. This package is Spark's own, since its block manager is open to nobody else.
  *
  * BigDL's AllReduceParameter does the same, but goes on without a word where a block is missing or finds no room.
  *
  * @param run names the blocks.
  * @param size of the flat vector.
  * @param truncated whether other workers get the upper 16 bits of each gradient; their sum stays exact.
  */
final class Exchange(run: String, rank: Int, workers: Int, size: Int, truncated: Boolean) {
  private val manager = SparkEnv.get.blockManager
  private val others = (0 until workers).filter(_ != rank)
  private val (gradientBlocks, weightBlocks) =
    try {
      val gradients = others.map(to => to -> publish(gradientBlock(rank, to), slice(to)._2 * (if (truncated) 2 else 4)))
      (gradients.toMap, if (others.isEmpty) Nil else Seq(publish(weightBlock(rank), 4 * length)))
    } catch {
      case error: Throwable =>
        close()
        throw error
    }

  /** First element and length of this worker's slice. */
  def start: Int = slice(rank)._1
  def length: Int = slice(rank)._2

  /** Hands the other workers their slices of this worker's gradients [size]. */
  def putGradients(gradients: Array[Float]): Unit = gradientBlocks.foreach { case (to, bytes) =>
    val (from, count) = slice(to)
    val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    if (truncated) {
      var i = from
      while (i < from + count) {
        buffer.putShort((java.lang.Float.floatToRawIntBits(gradients(i)) >>> 16).toShort)
        i += 1
      }
    } else buffer.asFloatBuffer().put(gradients, from, count)
  }

  /** The sum of all workers' gradients of this slice [length], in the order of their ranks. */
  def sumGradients(own: Array[Float]): Array[Float] = {
    val parts = others.par.map(from => from -> fetch(gradientBlock(from, rank))).toMap.seq
    val sum = new Array[Float](length)
    for (from <- 0 until workers) parts.get(from) match {
      case None => for (i <- sum.indices) sum(i) += own(start + i)
      case Some(buffer) if truncated =>
        for (i <- sum.indices) sum(i) += java.lang.Float.intBitsToFloat(buffer.getShort() << 16)
      case Some(buffer) =>
        val values = buffer.asFloatBuffer()
        for (i <- sum.indices) sum(i) += values.get()
    }
    sum
  }

  /** Publishes this worker's slice of the weights. */
  def putWeights(own: Array[Float]): Unit =
    weightBlocks.foreach(ByteBuffer.wrap(_).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(own))

  /** Fills `weights` [size] with all workers' slices. */
  def getWeights(own: Array[Float], weights: Array[Float]): Unit = {
    System.arraycopy(own, 0, weights, start, length)
    others.par.foreach { from =>
      val (first, count) = slice(from)
      fetch(weightBlock(from)).asFloatBuffer().get(weights, first, count)
    }
  }

  def close(): Unit =
    for (block <- others.map(gradientBlock(rank, _)) :+ weightBlock(rank)) {
      Exchange.here.remove(block)
      manager.removeBlock(block)
    }

  private def slice(of: Int): (Int, Int) = {
    val from = (size.toLong * of / workers).toInt
    (from, (size.toLong * (of + 1) / workers).toInt - from)
  }

  private def gradientBlock(from: Int, to: Int): BlockId = TestBlockId(s"$run-gradients-$from-$to")

  private def weightBlock(of: Int): BlockId = TestBlockId(s"$run-weights-$of")

  private def publish(block: BlockId, bytes: Int): Array[Byte] = {
    val array = new Array[Byte](bytes)
    val buffer = new ChunkedByteBuffer(ByteBuffer.wrap(array))
    // Of a task that Spark repeats: to put it again would keep the old one, in which nobody writes any more.
    if (manager.getStatus(block).isDefined) manager.removeBlock(block)
    if (!manager.putBytes(block, buffer, StorageLevel.MEMORY_ONLY_SER)(classTag[Array[Byte]]))
      throw new NoRoom(s"no storage memory for $bytes bytes of gradients or weights")
    Exchange.here.put(block, array)
    array
  }

  private def fetch(block: BlockId): ByteBuffer = {
    val buffer = Exchange.here.get(block).map(ByteBuffer.wrap).orElse(manager.getRemoteBytes(block).map(_.toByteBuffer))
    buffer
      .getOrElse(throw new BlockMissing(s"$block cannot be had: its executor is lost, or out of storage memory"))
      .order(ByteOrder.LITTLE_ENDIAN)
  }
}

/** What another worker should have published is not there. */
final class BlockMissing(message: String) extends RuntimeException(message)

/** Spark's storage memory, a share of the heap, has no room for what this worker publishes. */
final class NoRoom(message: String) extends RuntimeException(message)

private object Exchange {

  /** The blocks of this JVM's workers, which need not go through Spark to one another. */
  val here = TrieMap.empty[BlockId, Array[Byte]]
}
