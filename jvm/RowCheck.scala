package com.intel.analytics.bigdl.insitu

import org.apache.hadoop.conf.Configuration
import org.apache.spark.sql.SparkSession
import org.apache.spark.util.SerializableConfiguration
import org.json4s.{DefaultFormats, Formats}
import org.json4s.jackson.Serialization

/** Rows of a row group that the JVM cannot read or decode, and of the first of them why. */
final case class RefusedRows(path: String, rowGroup: Int, rows: Seq[Int], reasons: Seq[String])

/** Finds the rows that would end a run, before it starts. */
object RowCheck {
  private implicit val formats: Formats = DefaultFormats

  /** Reads and decodes each row once, as training does.
    *
    * @param sourceJson for `Source.parse`.
    * @param plan URI for `Shards.read`; each shard is a task's work.
    * @param reasons how many are told of a row group.
    * @return a JSON list of `RefusedRows`.
    */
  def refused(spark: SparkSession, sourceJson: String, plan: String, reasons: Int): String = {
    val sc = spark.sparkContext
    val (source, shards) = (Source.parse(sourceJson), Shards.read(spark, plan))
    val hadoop = sc.broadcast(new SerializableConfiguration(sc.hadoopConfiguration))
    val found = sc.makeRDD(shards, shards.length).flatMap(refusedOf(_, source, hadoop.value.value, reasons)).collect()
    Serialization.write(found)
  }

  private def refusedOf(shard: Shard, source: Source, hadoop: Configuration, reasons: Int): Seq[RefusedRows] = {
    val cursor = new RowGroupCursor(source, hadoop)
    try {
      for {
        piece <- shard.pieces.toSeq
        found = piece.offsets.toSeq.flatMap(row => refusal(piece.copy(offsets = Array(row)), source, cursor).map(row -> _))
        if found.nonEmpty
      } yield RefusedRows(piece.path, piece.rowGroup, found.map(_._1), found.take(reasons).map(_._2))
    } finally cursor.close()
  }

  /** @param row a piece of one row. */
  private def refusal(row: Piece, source: Source, cursor: RowGroupCursor): Option[String] =
    try {
      Decoding.batch(cursor.take(row), source)((pixels, _) => pixels)
      None
    } catch {
      case error: BadValue =>
        Some(error.getMessage.stripPrefix(s"${row.path}, row group ${row.rowGroup}, row ${row.offsets.head}: "))
    }
}
