package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.dllib.tensor.TensorNumericMath.TensorNumeric.NumericFloat
import com.intel.analytics.bigdl.dllib.tensor.{Storage, Tensor}
import java.io.{BufferedInputStream, InputStream}
import java.nio.{ByteBuffer, ByteOrder}
import java.nio.charset.StandardCharsets.ISO_8859_1

import scala.collection.JavaConverters._
import scala.reflect.ClassTag
import scala.util.Try

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.Path
import org.apache.parquet.bytes.{ByteBufferInputStream, BytesInput, BytesUtils}
import org.apache.parquet.column.values.rle.RunLengthBitPackingHybridDecoder
import org.apache.parquet.column.values.{RequiresPreviousReader, ValuesReader}
import org.apache.parquet.column.page.{DataPage, DataPageV1, DataPageV2, DictionaryPage, PageReader}
import org.apache.parquet.column.{ColumnDescriptor, Encoding, ValuesType}
import org.apache.parquet.format.converter.ParquetMetadataConverter
import org.apache.parquet.format.{PageHeader, PageType, Util}
import org.apache.parquet.hadoop.metadata.ColumnChunkMetaData
import org.apache.parquet.hadoop.util.HadoopInputFile
import org.apache.parquet.hadoop.{CodecFactory, ParquetFileReader}
import org.apache.parquet.schema.LogicalTypeAnnotation.IntLogicalTypeAnnotation
import org.apache.parquet.schema.PrimitiveType.PrimitiveTypeName._
import org.apache.parquet.{CorruptDeltaByteArrays, VersionParser}
import org.apache.spark.sql.SparkSession
import org.json4s.{DefaultFormats, Formats}
import org.json4s.jackson.JsonMethods

/** Where rows come from and what they become.
  *
  * @param input, label names of the columns.
  * @param inputForm as in `insitu.data`: of images encoded, binary_file, spark_image, huggingface or petastorm, of tensors
  *   list or ndarray.
  * @param labelForm integer or multi_hot.
  * @param labelWidth numbers in a label: 1 for integer, K for multi_hot.
  * @param height, width, channels of what the network reads.
  */
final case class Source(
    input: String,
    inputForm: String,
    label: String,
    labelForm: String,
    labelWidth: Int,
    height: Int,
    width: Int,
    channels: Int
) {

  /** Numbers in a row's input. */
  def size: Int = height * width * channels

  /** What a network reads of `rows` rows of a batch, from row `from` on: `scale` times the values plus `offset`, float
    * [rows, C, h, w]; zero beyond the batch's end.
    */
  def networkInput(batch: Batch, from: Int, rows: Int, scale: Float, offset: Float): Tensor[Float] = {
    val values = new Array[Float](rows * size)
    val filled = math.max(0, math.min(rows, batch.rows - from)) * size
    var i = 0
    while (i < filled) {
      values(i) = batch.inputs(from * size + i) * scale + offset
      i += 1
    }
    Tensor[Float](Storage(values), 1, Array(rows, channels, height, width))
  }
}

object Source {
  private implicit val formats: Formats = DefaultFormats

  /** From JSON with snake-case keys. */
  def parse(json: String): Source = JsonMethods.parse(json).camelizeKeys.extract[Source]
}

/** Some rows of one Parquet row group.
  *
  * @param path URI of the file, nothing percent-encoded.
  * @param rowGroup index of the row group in the file.
  * @param offsets ascending row offsets within the row group.
  */
final case class Piece(path: String, rowGroup: Int, offsets: Array[Int]) {

  /** A row's file, row group and offset, for messages. */
  def place(row: Int): String = s"$path, row group $rowGroup, row $row"
}

/** One worker's rows. */
final case class Shard(pieces: Array[Piece]) {
  def rows: Int = pieces.map(_.offsets.length).sum
}

object Shards {

  /** The workers' rows, by rank.
    *
    * @param uri a Parquet file with columns worker int32, position int32 (of the piece in its shard), path string,
    *   row_group int32 and offsets list<int32>.
    */
  def read(spark: SparkSession, uri: String): Array[Shard] = {
    val file = new ParquetFile(uri, spark.sparkContext.hadoopConfiguration)
    try {
      val placed = (0 until file.rowGroups).flatMap { index =>
        val names = Seq("worker", "position", "path", "row_group", "offsets")
        val group = file.rowGroup(index, names.map(file.only))
        val Seq(worker, position, path, rowGroup, offsets) = group.leaves
        try {
          (0 until group.rows.toInt).map { row =>
            val piece = Piece(
              path.one(row, _.readBytes.toStringUsingUTF8),
              rowGroup.integer(row),
              offsets.all(row, _.readInteger)
            )
            (worker.integer(row), position.integer(row)) -> piece
          }
        } finally group.close()
      }
      val byWorker = placed.groupBy { case ((worker, _), _) => worker }
      Array.tabulate(byWorker.size) { worker =>
        Shard(byWorker(worker).sortBy { case ((_, position), _) => position }.map(_._2).toArray)
      }
    } finally file.close()
  }
}

/** What a window holds of a row's input. */
private[insitu] sealed trait Stored

/** @param bytes that `Images.decode` takes */
private[insitu] final case class StoredImage(bytes: Array[Byte]) extends Stored

/** @param values [h, w, C], finite */
private[insitu] final case class StoredTensor(values: Array[Float]) extends Stored

/** A row as it is stored.
  *
  * @param label `Source.labelWidth` numbers.
  * @param piece, row where it comes from.
  */
private[insitu] final case class Row(input: Stored, label: Array[Float], piece: Piece, row: Int) {

  /** For messages. */
  def place: String = piece.place(row)
}

/** Reads rows of row groups; of a row group that spans several windows no row is read twice.
  *
  * Memory holds a page and a read buffer of each column.
  */
private[insitu] final class RowGroupCursor(source: Source, hadoop: Configuration) extends AutoCloseable {
  private var file: ParquetFile = _
  private var group: RowGroup = _
  private var from: (String, Int) = _

  /** The rows of one piece, in stored order.
    *
    * @throws BadValue a label that cannot be read, or a row that is not there; the message names it.
    */
  def take(piece: Piece): Array[Row] = {
    if ((piece.path, piece.rowGroup) != from || piece.offsets.head < group.next) open(piece)
    piece.offsets.map { row =>
      if (Thread.interrupted()) throw new InterruptedException
      BadRow.naming(piece.place(row))(Row(input(row), label(row), piece, row))
    }
  }

  def close(): Unit = {
    from = null
    if (group != null) group.close()
    if (file != null) file.close()
  }

  private def open(piece: Piece): Unit = {
    close()
    file = new ParquetFile(piece.path, hadoop)
    if (piece.rowGroup >= file.rowGroups)
      throw new BadValue(
        s"${piece.path} has ${file.rowGroups} row groups, number ${piece.rowGroup} was planned: the data has changed " +
          "since the run began"
      )
    group = file.rowGroup(piece.rowGroup, inputLeaves :+ file.only(source.label))
    from = (piece.path, piece.rowGroup)
  }

  private def inputLeaves: Seq[ColumnDescriptor] = source.inputForm match {
    case "huggingface" => Seq(file.at(Seq(source.input, "bytes")))
    case "spark_image" => Seq("height", "width", "nChannels", "data").map(name => file.at(Seq(source.input, name)))
    case "list"        => Seq(file.only(source.input))
    case _             => Seq(file.at(Seq(source.input)))
  }

  private def input(row: Int): Stored = source.inputForm match {
    case "list"    => StoredTensor(Tensors.finite(group.leaves.head.floats(row, source.size)))
    case "ndarray" => StoredTensor(Tensors.fromNumpy(image(row), source))
    case _         => StoredImage(image(row))
  }

  private def image(row: Int): Array[Byte] = group.leaves.init match {
    case Seq(bytes) => bytes.one(row, _.readBytes.getBytes)
    case Seq(height, width, channels, data) =>
      SparkImage.asNpy(
        height.integer(row),
        width.integer(row),
        channels.integer(row),
        data.one(row, _.readBytes.getBytes)
      )
  }

  private def label(row: Int): Array[Float] = {
    val leaf = group.leaves.last
    val label = leaf.kind match {
      case INT32   => leaf.all(row, _.readInteger.toFloat)
      case INT64   => leaf.all(row, _.readLong.toFloat)
      case BOOLEAN => leaf.all(row, value => if (value.readBoolean) 1f else 0f)
      case FLOAT   => leaf.all(row, _.readFloat)
      case DOUBLE  => leaf.all(row, _.readDouble.toFloat)
      case BINARY  => NumpyArray.parse(leaf.one(row, _.readBytes.getBytes)).floats
      case other   => throw new BadValue(s"label of type $other, expected numbers")
    }
    if (label.length != source.labelWidth)
      throw new BadValue(s"label has ${label.length} numbers, expected ${source.labelWidth}")
    if (source.labelForm == "multi_hot" && !label.forall(number => number == 0 || number == 1))
      throw new BadValue(s"label ${label.mkString("[", ", ", "]")} is no list of 0 and 1")
    label
  }
}

private[insitu] object BadRow {

  /** Puts the row's place before the message of what is wrong with it. */
  def naming[T](place: => String)(read: => T): T =
    try read
    catch { case error: BadValue => throw new BadValue(s"$place: ${error.getMessage}") }
}

private object SparkImage {

  /** Spark's image struct (row-wise grey, BGR or BGRA bytes) as `.npy` bytes in grey, RGB or RGBA. */
  def asNpy(height: Int, width: Int, channels: Int, data: Array[Byte]): Array[Byte] = {
    if (height.toLong * width * channels != data.length)
      throw new BadValue(s"${data.length} bytes of pixels, expected $height x $width x $channels")
    if (channels >= 3)
      for (pixel <- data.indices by channels) {
        val blue = data(pixel)
        data(pixel) = data(pixel + 2)
        data(pixel + 2) = blue
      }
    val header = s"{'descr': '|u1', 'fortran_order': False, 'shape': ($height, $width, $channels), }\n"
    val start = Array(0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, header.length, 0).map(_.toByte)
    start ++ header.getBytes(ISO_8859_1) ++ data
  }
}

/** An open Parquet file on any file system that Hadoop knows. */
private[insitu] final class ParquetFile(uri: String, hadoop: Configuration) extends AutoCloseable {
  private val input = HadoopInputFile.fromPath(new Path(uri), hadoop)
  private val footer = {
    val reader = ParquetFileReader.open(input)
    try reader.getFooter
    finally reader.close()
  }
  private val codecs = new CodecFactory(hadoop, 0)
  private val leaves = footer.getFileMetaData.getSchema.getColumns.asScala

  def rowGroups: Int = footer.getBlocks.size

  /** The leaf column at a path of names. */
  def at(path: Seq[String]): ColumnDescriptor =
    leaves.find(_.getPath.toSeq == path).getOrElse(throw new BadValue(s"$uri has no column ${path.mkString(".")}"))

  /** The only leaf of a column, however deep in lists. */
  def only(column: String): ColumnDescriptor = leaves.filter(_.getPath.head == column) match {
    case Seq(leaf) => leaf
    case found     => throw new BadValue(s"$uri: column $column has ${found.length} leaves, expected 1")
  }

  def rowGroup(index: Int, columns: Seq[ColumnDescriptor]): RowGroup = {
    val block = footer.getBlocks.get(index)
    val chunks = block.getColumns.asScala.map(chunk => chunk.getPath.toArray.toSeq -> chunk).toMap
    val opened = columns.map { column =>
      val pages = new ChunkPages(input, chunks(column.getPath.toSeq), codecs)
      new Leaf(column, pages, footer.getFileMetaData.getCreatedBy, block.getRowCount)
    }
    new RowGroup(block.getRowCount, opened)
  }

  def close(): Unit = codecs.release()
}

/** Open columns of one row group. */
private[insitu] final class RowGroup(val rows: Long, val leaves: Seq[Leaf]) extends AutoCloseable {

  /** The first row that can still be read. */
  def next: Int = leaves.map(_.next).max

  def close(): Unit = leaves.foreach(_.close())
}

/** The values of one leaf column, in ascending rows. */
private[insitu] final class Leaf(column: ColumnDescriptor, pages: ChunkPages, createdBy: String, rows: Long)
    extends AutoCloseable {
  private val entries = new Entries(column, pages, createdBy)

  /** The first row that can still be read. */
  var next = 0

  val kind = column.getPrimitiveType.getPrimitiveTypeName

  private val unsigned = column.getPrimitiveType.getLogicalTypeAnnotation match {
    case number: IntLogicalTypeAnnotation => !number.isSigned
    case _                                => false
  }

  /** The value of a row.
    *
    * @throws BadValue null, a list, or beyond the last row.
    */
  def one[T: ClassTag](row: Int, read: ValuesReader => T): T = all(row, read) match {
    case Array(value) => value
    case several      => throw new BadValue(s"$name has ${several.length} values, expected 1")
  }

  def integer(row: Int): Int =
    if (kind == INT64) one(row, _.readLong.toInt) else one(row, _.readInteger)

  /** The numbers of a row's list, at any depth, rounded once.
    *
    * @throws BadValue null, another number of values than `count`, no numbers, or beyond the last row.
    */
  def floats(row: Int, count: Int): Array[Float] = {
    seek(row)
    val found = new Array[Float](count)
    var size = 0
    record { () =>
      if (isNull) throw new BadValue(s"$name is null")
      if (size < count) found(size) = float() else skip()
      size += 1
    }
    if (size != count) throw new BadValue(s"list of $size, expected $count")
    found
  }

  /** The values of a row, several where the column is a list.
    *
    * @throws BadValue null, empty, or beyond the last row.
    */
  def all[T: ClassTag](row: Int, read: ValuesReader => T): Array[T] = {
    seek(row)
    val found = Array.newBuilder[T]
    record { () =>
      if (isNull) throw new BadValue(s"$name is null")
      found += read(entries.values)
    }
    found.result()
  }

  def close(): Unit = pages.close()

  private def seek(row: Int): Unit = {
    if (row >= rows) throw new BadValue(s"the row group has $rows rows: the data has changed since the run began")
    while (next < row) record(skip)
  }

  private def float(): Float = {
    val values = entries.values
    kind match {
      case FLOAT             => values.readFloat
      case DOUBLE            => values.readDouble.toFloat
      case INT32 if unsigned => (values.readInteger & 0xffffffffL).toFloat
      case INT32             => values.readInteger.toFloat
      case INT64 if unsigned => Tensors.unsigned(values.readLong)
      case INT64             => values.readLong.toFloat
      case other             => throw new BadValue(s"$name of type $other, expected numbers")
    }
  }

  private def name: String = column.getPath.mkString(".")
  private def isNull: Boolean = entries.definition < column.getMaxDefinitionLevel
  private def skip(): Unit = if (!isNull) entries.values.skip()

  private def record(visit: () => Unit): Unit = {
    next += 1
    do {
      visit()
      entries.next()
    } while (entries.repetition > 0)
  }
}

/** The entries of a column chunk one after the other, beginning at the first: a value that is there, or none.
  *
  * In the place of Parquet's `ColumnReaderImpl`, which reads a plain number from a stream byte by byte.
  */
private final class Entries(column: ColumnDescriptor, pages: ChunkPages, createdBy: String) {
  private val writer = Try(VersionParser.parse(createdBy)).getOrElse(null) // as Parquet's own reader takes others
  private val dictionary =
    Option(pages.readDictionaryPage()).map(page => page.getEncoding.initDictionary(column, page)).orNull
  private var left = pages.getTotalValueCount
  private var leftInPage = 0
  private var repetitions: () => Int = _
  private var definitions: () => Int = _

  /** Gives this entry's value if it is there; it has to be read or skipped before the next one. */
  var values: ValuesReader = _

  /** Levels of this entry; beyond the last one the repetition is 0. */
  var repetition, definition = 0

  next()

  def next(): Unit =
    if (left == 0) repetition = 0
    else {
      if (leftInPage == 0) open(pages.readPage())
      leftInPage -= 1
      left -= 1
      repetition = repetitions()
      definition = definitions()
    }

  private def open(page: DataPage): Unit = {
    leftInPage = page.getValueCount
    page match {
      case first: DataPageV1 =>
        val bytes = first.getBytes.toInputStream
        repetitions = levels(first.getRlEncoding, ValuesType.REPETITION_LEVEL, bytes)
        definitions = levels(first.getDlEncoding, ValuesType.DEFINITION_LEVEL, bytes)
        values = reader(first.getValueEncoding, bytes)
      case second: DataPageV2 =>
        repetitions = levels(column.getMaxRepetitionLevel, second.getRepetitionLevels)
        definitions = levels(column.getMaxDefinitionLevel, second.getDefinitionLevels)
        values = reader(second.getDataEncoding, second.getData.toInputStream)
    }
  }

  private def levels(encoding: Encoding, kind: ValuesType, bytes: ByteBufferInputStream): () => Int = {
    val reader = encoding.getValuesReader(column, kind)
    reader.initFromPage(leftInPage, bytes)
    () => reader.readInteger
  }

  private def levels(highest: Int, bytes: BytesInput): () => Int = {
    val decoder = new RunLengthBitPackingHybridDecoder(BytesUtils.getWidthFromMaxInt(highest), bytes.toInputStream)
    if (highest == 0) () => 0 else () => decoder.readInt
  }

  private def reader(encoding: Encoding, bytes: ByteBufferInputStream): ValuesReader = {
    val made = column.getPrimitiveType.getPrimitiveTypeName match {
      case _ if encoding.usesDictionary => encoding.getDictionaryBasedValuesReader(column, ValuesType.VALUES, dictionary)
      case INT32 | FLOAT if encoding == Encoding.PLAIN  => new PlainNumbers(4)
      case INT64 | DOUBLE if encoding == Encoding.PLAIN => new PlainNumbers(8)
      case _                                            => encoding.getValuesReader(column, ValuesType.VALUES)
    }
    made.initFromPage(leftInPage, bytes)
    (made, values) match {
      case (after: RequiresPreviousReader, before: RequiresPreviousReader)
          if CorruptDeltaByteArrays.requiresSequentialReads(writer, encoding) =>
        after.setPreviousReader(before.asInstanceOf[ValuesReader])
      case _ =>
    }
    made
  }
}

/** Numbers of `width` bytes as they are stored. */
private final class PlainNumbers(width: Int) extends ValuesReader {
  private var bytes: ByteBuffer = _

  override def initFromPage(count: Int, input: ByteBufferInputStream): Unit =
    bytes = input.slice(input.available).order(ByteOrder.LITTLE_ENDIAN)

  override def readFloat(): Float = bytes.getFloat
  override def readDouble(): Double = bytes.getDouble
  override def readInteger(): Int = bytes.getInt
  override def readLong(): Long = bytes.getLong
  override def skip(): Unit = bytes.position(bytes.position() + width)
}

/** The pages of a column chunk, decompressed one after the other, where Parquet's own reader loads the whole chunk. */
private final class ChunkPages(file: HadoopInputFile, chunk: ColumnChunkMetaData, codecs: CodecFactory)
    extends PageReader
    with AutoCloseable {
  private val BufferBytes = 1 << 20
  private val decompressor = codecs.getDecompressor(chunk.getCodec)
  private val formats = new ParquetMetadataConverter()
  private val input: InputStream = {
    val stream = file.newStream()
    stream.seek(chunk.getStartingPos)
    new BufferedInputStream(stream, math.min(BufferBytes, chunk.getTotalSize).toInt)
  }
  private var values = 0L
  private var header: PageHeader = Util.readPageHeader(input)

  override def getTotalValueCount: Long = chunk.getValueCount

  override def readDictionaryPage(): DictionaryPage =
    if (header.getType != PageType.DICTIONARY_PAGE) null
    else {
      val dictionary = header.getDictionary_page_header
      val bytes = decompressed(read(header.getCompressed_page_size), header.getUncompressed_page_size)
      header = Util.readPageHeader(input)
      new DictionaryPage(bytes, dictionary.getNum_values, formats.getEncoding(dictionary.getEncoding))
    }

  override def readPage(): DataPage = {
    if (values > 0) header = Util.readPageHeader(input)
    val page = header.getType match {
      case PageType.DATA_PAGE    => first(header)
      case PageType.DATA_PAGE_V2 => second(header)
      case other                 => throw new BadValue(s"Parquet page of type $other, expected data")
    }
    values += page.getValueCount
    page
  }

  override def close(): Unit = input.close()

  private def first(header: PageHeader): DataPage = {
    val page = header.getData_page_header
    val bytes = decompressed(read(header.getCompressed_page_size), header.getUncompressed_page_size)
    new DataPageV1(
      bytes,
      page.getNum_values,
      header.getUncompressed_page_size,
      null,
      formats.getEncoding(page.getRepetition_level_encoding),
      formats.getEncoding(page.getDefinition_level_encoding),
      formats.getEncoding(page.getEncoding)
    )
  }

  private def second(header: PageHeader): DataPage = {
    val page = header.getData_page_header_v2
    val levels = page.getRepetition_levels_byte_length + page.getDefinition_levels_byte_length
    val repetition = read(page.getRepetition_levels_byte_length)
    val definition = read(page.getDefinition_levels_byte_length)
    val data = read(header.getCompressed_page_size - levels)
    DataPageV2.uncompressed(
      page.getNum_rows,
      page.getNum_nulls,
      page.getNum_values,
      repetition,
      definition,
      formats.getEncoding(page.getEncoding),
      if (page.isIs_compressed) decompressed(data, header.getUncompressed_page_size - levels) else data,
      null
    )
  }

  private def read(size: Int): BytesInput = {
    val bytes = input.readNBytes(size)
    if (bytes.length < size) throw new BadValue(s"Parquet page of ${bytes.length} bytes, expected $size")
    BytesInput.from(bytes)
  }

  /** Not lazily: the decompressor is shared. */
  private def decompressed(bytes: BytesInput, size: Int): BytesInput =
    BytesInput.from(decompressor.decompress(bytes, size).toByteArray)
}
