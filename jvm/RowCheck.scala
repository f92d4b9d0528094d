package com.intel.analytics.bigdl.insitu

import org.apache.hadoop.conf.Configuration
import org.apache.spark.sql.SparkSession
import org.apache.spark.util.SerializableConfiguration
import org.json4s.{DefaultFormats, Formats}
import org.json4s.jackson.Serialization

/** A row that the JVM cannot read or decode, and why. */
final case class RefusedRow(path: String, rowGroup: Int, row: Int, reason: String)

/** Finds the rows that would end a run, before it starts. */
object RowCheck {
  private implicit val formats: Formats = DefaultFormats

  /** Reads and decodes each row once, as training does.
    *
    * @param sourceJson for `Source.parse`.
    * @param plan URI for `Shards.read`; each shard is a task's work.
    * @return a JSON list of `RefusedRow`.
    */
  def refused(spark: SparkSession, sourceJson: String, plan: String): String = {
    val sc = spark.sparkContext
    val (source, shards) = (Source.parse(sourceJson), Shards.read(spark, plan))
    val hadoop = sc.broadcast(new SerializableConfiguration(sc.hadoopConfiguration))
    val found = sc.makeRDD(shards, shards.length).flatMap(refusedOf(_, source, hadoop.value.value)).collect()
    Serialization.write(found)
  }

  private def refusedOf(shard: Shard, source: Source, hadoop: Configuration): Seq[RefusedRow] = {
    val cursor = new RowGroupCursor(source, hadoop)
    try {
      for {
        piece <- shard.pieces.toSeq
        row <- piece.offsets
        reason <- refusal(piece.copy(offsets = Array(row)), source, cursor)
      } yield RefusedRow(piece.path, piece.rowGroup, row, reason)
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
