package insitu.recommend.als

import java.nio.file.{Files, Paths}

import scala.collection.JavaConverters._

import org.apache.spark.unsafe.Platform

/** Solves blocks of rows in native/als.c, which setup compiles into this jar for two generations of processors. */
private[als] object Native {

  /** The flags of /proc/cpuinfo that each library needs, best first. */
  private val Libraries = Seq(
    "als-avx512.so" -> Set("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "als-avx2.so" -> Set("avx2", "fma", "bmi2")
  )

  private lazy val loaded: Unit = {
    val flags = Files.readAllLines(Paths.get("/proc/cpuinfo")).asScala.find(_.startsWith("flags")).fold(Set.empty[String])(
      _.split("\\s+").toSet
    )
    val (name, _) = Libraries.find(_._2.subsetOf(flags)).getOrElse(
      throw new IllegalStateException("solver: cholesky and cg need a processor with AVX2; take mllib")
    )
    val file = Files.createTempFile("insitu-", s"-$name")
    try {
      Files.write(file, getClass.getResourceAsStream(name).readAllBytes())
      System.load(file.toString)
    } finally Files.delete(file)
  }

  /** As `Solved`'s; also of factors outside Java's heap, for as long as it takes: those of the block's columns and
    * rows, and the block's ratings.
    */
  def solve(
      problem: Problem,
      base: Option[Array[Float]],
      block: InBlock,
      sent: Iterator[Message],
      previous: Option[Array[Float]]
  ): Solved = {
    loaded
    val rank = problem.rank
    val factors = previous.fold(new Array[Float](Math.multiplyExact(block.ids.length, rank)))(_.clone())
    val memory = new OffHeap
    try {
      val table = memory.allocate((block.columns.length.toLong * rank + Beyond) * WordBytes)
      sent.foreach { message =>
        val at = table + block.tableStarts(message.from).toLong * rank * WordBytes
        Platform.copyMemory(message.factors, Platform.BYTE_ARRAY_OFFSET, null, at, message.factors.length)
      }
      val (solved, loss) = (memory.copy(factors), memory.allocate(java.lang.Double.BYTES))
      val error = solveRows(
        rank, problem.reg, problem.implicitly, problem.alpha, problem.conjugateGradient, block.ids.length,
        base.fold(0L)(memory.copy), memory.copy(block.starts), memory.copy(block.sources), memory.copy(block.ratings),
        table, solved, loss
      )
      check(error, problem)
      Platform.copyMemory(null, solved, factors, Platform.FLOAT_ARRAY_OFFSET, factors.length.toLong * WordBytes)
      Solved(block.ids, factors, Platform.getDouble(null, loss))
    } finally memory.free()
  }

  private def check(error: Int, problem: Problem): Unit = error match {
    case 0 => ()
    case 1 =>
      throw new IllegalArgumentException(
        s"regParam: ${problem.reg} leaves normal equations that single precision cannot solve; set a larger one"
      )
    case _ => throw new OutOfMemoryError("no memory beside Java's heap to solve rows in; raise spark.executor.memoryOverhead")
  }

  /** The vectors of the library read up to one beyond the table. */
  private val Beyond = 16
  private val WordBytes = Packed.WordBytes

  /** native/als.c's entry; arrays are addresses. */
  @native private def solveRows(
      rank: Int,
      reg: Float,
      implicitly: Boolean,
      alpha: Float,
      conjugateGradient: Boolean,
      rows: Int,
      base: Long,
      starts: Long,
      sources: Long,
      ratings: Long,
      table: Long,
      factors: Long,
      loss: Long
  ): Int
}

/** Memory outside Java's heap. */
private final class OffHeap {
  private var addresses = List.empty[Long]

  def allocate(bytes: Long): Long = {
    addresses ::= Platform.allocateMemory(bytes)
    addresses.head
  }

  def copy(array: Array[Float]): Long = copy(array, Platform.FLOAT_ARRAY_OFFSET, array.length)

  def copy(array: Array[Int]): Long = copy(array, Platform.INT_ARRAY_OFFSET, array.length)

  private def copy(array: AnyRef, offset: Long, length: Int): Long = {
    val bytes = length.toLong * Packed.WordBytes
    val address = allocate(bytes)
    Platform.copyMemory(array, offset, null, address, bytes)
    address
  }

  def free(): Unit = addresses.foreach(Platform.freeMemory)
}
