package insitu.recommend.als

import java.nio.file.{Files, Paths}

import scala.collection.JavaConverters._

/** The functions of native/, which setup compiles into this jar for two generations of processors. */
private[als] object Native {

  /** The flags of /proc/cpuinfo that each library needs, best first. */
  private val Libraries = Seq(
    "als-avx512.so" -> Set("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "als-avx2.so" -> Set("avx2", "fma", "bmi2")
  )

  /** The library that this processor runs, such as als-avx512.so. */
  val library: String = load()

  /** Throw what an error of errors.h says. */
  def check(error: Int): Unit = error match {
    case 0 => ()
    case 1 =>
      throw new IllegalArgumentException(
        "regParam: leaves normal equations that single precision cannot solve; set a larger one, or scale huge ratings down"
      )
    case _ => throw new OutOfMemoryError("no memory beside Java's heap for ALS; raise spark.executor.memoryOverhead")
  }

  private def load(): String = {
    val cpu = Files.readAllLines(Paths.get("/proc/cpuinfo")).asScala.find(_.startsWith("flags"))
    val flags = cpu.fold(Set.empty[String])(_.split("\\s+").toSet)
    val (name, _) = Libraries.find(_._2.subsetOf(flags)).getOrElse(
      throw new IllegalStateException("ALS needs a processor with AVX2, and /proc/cpuinfo lists none; solver mllib does not")
    )
    val file = Files.createTempFile("insitu-", s"-$name")
    try {
      Files.write(file, getClass.getResourceAsStream(name).readAllBytes())
      System.load(file.toString)
    } catch {
      case error: UnsatisfiedLinkError =>
        val mend = "set -Djava.io.tmpdir to a directory from which programs may run (no noexec)"
        throw new IllegalStateException(s"$file does not load (${error.getMessage}); $mend", error)
    } finally Files.delete(file)
    name
  }

  /** rows.c's. */
  @native def solveRows(
      rank: Int,
      reg: Float,
      implicitly: Boolean,
      alpha: Float,
      conjugateUpTo: Int,
      rows: Int,
      base: Long,
      starts: Long,
      sources: Long,
      ratings: Long,
      table: Long,
      factors: Long,
      loss: Long
  ): Int

  /** blocks.c's. */
  @native def splitRatings(
      count: Int,
      rows: Long,
      columns: Long,
      values: Long,
      blocks: Int,
      starts: Long,
      grouped: Long
  ): Int

  /** blocks.c's. */
  @native def compressRatings(
      count: Int,
      rows: Long,
      columns: Long,
      values: Long,
      columnBlocks: Int,
      ids: Long,
      starts: Long,
      sources: Long,
      ratings: Long,
      table: Long,
      tableStarts: Long,
      sizes: Long
  ): Int
}
