package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.dllib.utils.Engine
import com.intel.analytics.bigdl.mkl.MKL
import org.apache.spark.TaskContext
import org.apache.spark.sql.types.{ArrayType, FloatType, StringType}
import org.apache.spark.sql.{DataFrame, Encoders, Row => FrameRow}
import org.json4s.jackson.JsonMethods
import org.json4s.{DefaultFormats, Formats}

import java.util.concurrent.LinkedBlockingDeque

/** How rows are scored, made from JSON with snake-case keys.
  *
  * @param digest of the topology and all weights.
  * @param engine mklblas or mkldnn.
  * @param threads of an executor, that mkldnn computes on together.
  * @param batch rows that are scored together.
  * @param topology JSON for `Network.build`.
  * @param scale, offset what the network reads is `scale` times the value plus `offset`.
  * @param activation for `Head`.
  * @param input, inputForm the column, and height, width, channels of what the network reads, as for `Source`.
  */
private[insitu] final case class Scoring(
    digest: String,
    engine: String,
    threads: Int,
    batch: Int,
    topology: String,
    scale: Float,
    offset: Float,
    activation: String,
    input: String,
    inputForm: String,
    height: Int,
    width: Int,
    channels: Int
) {

  /** Two that share it can share networks. */
  def network: Scoring = copy(input = "", inputForm = "")

  def source: Source = Source(input, inputForm, label = "", labelForm = "", labelWidth = 0, height, width, channels)
}

private[insitu] object Scoring {
  private implicit val formats: Formats = DefaultFormats

  def parse(json: String): Scoring = JsonMethods.parse(json).camelizeKeys.extract[Scoring]
}

/** What is sent to the executors. */
private[insitu] final case class ScoringModel(scoring: Scoring, parameters: Array[Float], statistics: Array[Float])

/** Scores DataFrames on the executors. */
object Scorer {

  /** Adds the columns `scores`, array<float> [K], null where the row cannot be read, and `fault`, why it cannot, else
    * null, to those of `frame`. No job is run; rows keep their order, and memory holds a batch of them a task.
    *
    * @param scoringJson for `Scoring.parse`.
    * @param weights URI of a directory with the vectors `parameters` and `statistics`; they are read at once.
    */
  def score(frame: DataFrame, scoringJson: String, weights: String): DataFrame = {
    val scoring = Scoring.parse(scoringJson)
    val sc = frame.sparkSession.sparkContext
    val Seq(parameters, statistics) =
      Seq("parameters", "statistics").map(name => Vectors.read(s"$weights/$name", sc.hadoopConfiguration))
    val model = sc.broadcast(ScoringModel(scoring, parameters, statistics))
    val column = frame.schema.fieldIndex(scoring.input)
    val schema = frame.schema.add("scores", ArrayType(FloatType, containsNull = false)).add("fault", StringType)
    frame.mapPartitions(rows => if (rows.isEmpty) rows else scored(rows, column, model.value))(Encoders.row(schema))
  }

  private def scored(rows: Iterator[FrameRow], column: Int, model: ScoringModel): Iterator[FrameRow] = {
    val (scoring, source) = (model.scoring, model.scoring.source)
    val loaded = LoadedModels.lease(model)
    TaskContext.get().addTaskCompletionListener[Unit](_ => LoadedModels.giveBack(loaded))
    rows.grouped(scoring.batch).flatMap { group =>
      val inputs = new Array[Float](group.length * source.size)
      val faults = group.zipWithIndex.map { case (row, index) =>
        try {
          Decoding.one(stored(row, column, scoring), source, inputs, index)(identity)
          None
        } catch { case error: BadValue => Some(error.getMessage) }
      }
      val scores = loaded.scores(Batch(inputs, Array.empty, group.length))
      val classes = scores.length / group.length
      group.iterator.zip(faults.iterator).zip(scores.grouped(classes)).map {
        case ((row, None), own)    => FrameRow.fromSeq(row.toSeq ++ Seq(own.toSeq, null))
        case ((row, Some(fault)), _) => FrameRow.fromSeq(row.toSeq ++ Seq(null, fault))
      }
    }
  }

  private def stored(row: FrameRow, column: Int, scoring: Scoring): Stored = {
    if (row.isNullAt(column)) throw new BadValue(s"${scoring.input} is null")
    scoring.inputForm match {
      case "list"        => StoredTensor(Tensors.fromList(row.getSeq[Any](column), scoring.source))
      case "ndarray"     => StoredTensor(Tensors.fromNumpy(row.getAs[Array[Byte]](column), scoring.source))
      case "huggingface" => StoredImage(row.getStruct(column).getAs[Array[Byte]]("bytes"))
      case "spark_image" => StoredImage(fromSparkImage(row.getStruct(column)))
      case _             => StoredImage(row.getAs[Array[Byte]](column))
    }
  }

  private def fromSparkImage(image: FrameRow): Array[Byte] = {
    val fields = Seq("height", "width", "nChannels", "data")
    for (field <- fields if image.isNullAt(image.fieldIndex(field))) throw new BadValue(s"$field is null")
    val Seq(height, width, channels) = fields.init.map(image.getAs[Int])
    SparkImage.asNpy(height, width, channels, image.getAs[Array[Byte]]("data").clone())
  }
}

/** A model in this JVM, for any number of threads.
  *
  * Under mkldnn one network computes on all cores and callers take turns; under mklblas every concurrent caller has a
  * replica that computes on the caller's own thread, so there are as many as tasks at a time. Neither reads or sets
  * BigDL's engine type, so training in the same JVM is not disturbed, whatever its engine.
  */
private[insitu] final class LoadedModel(model: ScoringModel) {
  import model.scoring._

  val key: Scoring = network
  var leases = 0
  private val head = Head(activation, Array.empty)
  private val first = {
    LoadedModel.prepareThreads(engine, threads)
    val built = Network.build(topology, engine, batch)
    Worker.fill(built.parameters, model.parameters)
    ready(built)
  }
  private val idle = new LinkedBlockingDeque[Network](java.util.Arrays.asList(first))

  /** [rows, K], flat; the network gets a full batch, filled up with zeros. */
  def scores(decoded: Batch): Array[Float] = {
    val input = source.networkInput(decoded, from = 0, batch, scale, offset)
    val all = withNetwork(network => Worker.values(network.forward(input).contiguous()).clone())
    val kept = all.take(decoded.rows * (all.length / batch))
    head.score(kept, decoded.rows)
    kept
  }

  /** Waits for callers. */
  def close(): Unit = withNetwork(_.release())

  private def withNetwork[A](work: Network => A): A = {
    val network =
      if (engine == "mkldnn") idle.takeFirst() else Option(idle.pollFirst()).getOrElse(ready(first.replica()))
    try {
      if (engine == "mklblas") MKL.setNumThreads(1) // counts for the calling thread
      work(network)
    } finally idle.addFirst(network)
  }

  private def ready(built: Network): Network = {
    built.setStatistics(model.statistics)
    built.evaluate()
    built
  }
}

private object LoadedModel {

  private def prepareThreads(engine: String, threads: Int): Unit = {
    System.setProperty("bigdl.disableOmpAffinity", "true") // as in Compute, before BigDL's engine is first used
    if (engine == "mkldnn") Engine.dnnComputing.setMKLThreadOfMklDnnBackend(threads)
  }
}

/** The models that this executor has scored with last, for the next tasks. */
private[insitu] object LoadedModels {
  private val Kept = 2
  private var all = Vector.empty[LoadedModel] // the last used last

  /** In use until it is given back. */
  def lease(model: ScoringModel): LoadedModel = synchronized {
    val found = all.find(_.key == model.scoring.network).getOrElse {
      keep(Kept - 1)
      new LoadedModel(model)
    }
    all = all.filterNot(_ eq found) :+ found
    found.leases += 1
    found
  }

  def giveBack(model: LoadedModel): Unit = synchronized {
    model.leases -= 1
    keep(Kept)
  }

  def held: Seq[LoadedModel] = synchronized(all)

  private def keep(count: Int): Unit = {
    val surplus = all.filter(_.leases == 0).take(all.length - count)
    all = all.filterNot(surplus.contains)
    surplus.foreach(_.close())
  }
}
