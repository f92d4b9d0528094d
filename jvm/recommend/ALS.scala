package insitu.recommend.als

import scala.collection.mutable.ArrayBuilder

import org.apache.spark.ml.param.{Param, ParamMap, ParamValidators}
import org.apache.spark.ml.recommendation.{ALSModel, SparkInternals, ALS => MllibALS}
import org.apache.spark.ml.util.{DefaultParamsReadable, Identifiable}
import org.apache.spark.rdd.RDD
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.encoders.ExpressionEncoder
import org.apache.spark.sql.functions.col
import org.apache.spark.sql.types.{DoubleType, FloatType}
import org.apache.spark.sql.{DataFrame, Dataset, Encoder}
import org.apache.spark.storage.StorageLevel

/** MLlib's ALS, its parameters and its model, computed by native/ over whole rows; the name is that of the Python class,
  * by which pyspark.ml saves and loads it.
  */
class ALS(override val uid: String) extends MllibALS(uid) {
  def this() = this(Identifiable.randomUID("als"))

  final val solver = new Param[String](
    this,
    "solver",
    "how rows are solved: auto, cholesky (exactly), cg (a few steps of conjugate gradient), mllib (MLlib's ALS)",
    ParamValidators.inArray(ALS.Solvers)
  )
  setDefault(solver -> "auto")

  def getSolver: String = $(solver)

  def setSolver(value: String): this.type = set(solver, value)

  @transient @volatile private var iterations = Seq.empty[Iteration]

  /** The iterations of the last fit of this object that are done, as JSON. */
  def history: String =
    iterations.map(i => s"""{"iteration":${i.number},"loss":${i.loss},"seconds":${i.seconds}}""").mkString("[", ",", "]")

  override def fit(dataset: Dataset[_]): ALSModel = {
    transformSchema(dataset.schema)
    Mkl.blas
    if ($(solver) == "mllib") {
      // Its tasks would take Java's BLAS without a word.
      val context = dataset.sparkSession.sparkContext
      context.parallelize(0 until context.defaultParallelism, context.defaultParallelism).foreach(_ => Mkl.blas)
      super.fit(dataset)
    } else fitBlocks(dataset)
  }

  private def fitBlocks(dataset: Dataset[_]): ALSModel = {
    iterations = Seq.empty
    val problem = Problem(
      rank = $(rank),
      reg = $(regParam).toFloat,
      implicitly = $(implicitPrefs),
      alpha = $(alpha).toFloat,
      nonnegative = $(nonnegative),
      conjugateUpTo = conjugateUpTo
    )
    val plan = Plan(
      userBlocks = $(numUserBlocks),
      itemBlocks = $(numItemBlocks),
      iterations = $(maxIter),
      checkpointInterval = $(checkpointInterval),
      level = StorageLevel.fromString($(intermediateStorageLevel)),
      finalLevel = StorageLevel.fromString($(finalStorageLevel)),
      seed = $(seed)
    )
    val ratings = ALS.ratings(selected(dataset), Seq($(userCol), $(itemCol), $(ratingCol)))
    val (users, items) = new Training(ratings, problem, plan, note).run()
    val model = SparkInternals.model(uid, $(rank), ALS.factors(dataset, users), ALS.factors(dataset, items))
    copyValues(model.setBlockSize($(blockSize)).setParent(this))
  }

  /** One that is done again, from a checkpoint on, takes the place of what it was and of what came after. */
  private def note(done: Iteration): Unit = iterations = iterations.filter(_.number < done.number) :+ done

  private def conjugateUpTo: Int = $(solver) match {
    case "cg" if $(nonnegative) =>
      throw new IllegalArgumentException("solver: cg has no nonnegative factors; take auto or cholesky")
    case "cg" => Int.MaxValue
    case "auto" if $(implicitPrefs) && !$(nonnegative) =>
      ALS.FasterByConjugateGradient.find($(rank) >= _._1).fold(0)(_._2)
    case _ => 0
  }

  private def selected(dataset: Dataset[_]): DataFrame =
    dataset.select(col($(userCol)).cast(DoubleType), col($(itemCol)).cast(DoubleType), col($(ratingCol)).cast(FloatType))

  override def copy(extra: ParamMap): ALS = defaultCopy(extra)
}

object ALS extends DefaultParamsReadable[ALS] {
  val Solvers: Array[String] = Array("auto", "cholesky", "cg", "mllib")

  /** Of implicit feedback, from which rank on conjugate gradient takes less time for rows of up to how many ratings;
    * docs/als.md has the measurements.
    */
  private val FasterByConjugateGradient = Seq(48 -> Int.MaxValue, 32 -> 256)

  override def load(path: String): ALS = super.load(path)

  /** Ratings of users (rows) of items (columns), an element for each partition.
    *
    * @param selected users, items and ratings, as double, double and float.
    * @throws IllegalArgumentException in the tasks: an id is null or no integer, a rating is null or not finite.
    */
  private def ratings(selected: DataFrame, names: Seq[String]): RDD[Ratings] =
    selected.queryExecution.toRdd.mapPartitions { rows =>
      val (users, items, values) = (new ArrayBuilder.ofInt, new ArrayBuilder.ofInt, new ArrayBuilder.ofFloat)
      rows.foreach { row =>
        users += id(row, 0, names)
        items += id(row, 1, names)
        values += rating(row, names)
      }
      Iterator.single(Ratings(users.result(), items.result(), values.result()))
    }

  private def id(row: InternalRow, column: Int, names: Seq[String]): Int = {
    val value = row.getDouble(column)
    if (row.isNullAt(column) || value != value.toInt) refuse(row, column, names, "an integer of 32 bits")
    value.toInt
  }

  private def rating(row: InternalRow, names: Seq[String]): Float = {
    val value = row.getFloat(2)
    if (row.isNullAt(2) || value.isNaN || value.isInfinite) refuse(row, 2, names, "a finite number")
    value
  }

  private def refuse(row: InternalRow, column: Int, names: Seq[String], expected: String): Nothing = {
    val types = Seq(DoubleType, DoubleType, FloatType)
    val values = types.indices.map(i => s"${names(i)} ${row.get(i, types(i))}")
    throw new IllegalArgumentException(
      s"column ${names(column)}: expected $expected in the row ${values.mkString(", ")}; mend such rows or filter them out"
    )
  }

  /** A row of a model's factors. Made once: Scala's reflection takes longer than an iteration. */
  private lazy val Row: Encoder[(Int, Array[Float])] = ExpressionEncoder()

  private def factors(dataset: Dataset[_], blocks: RDD[Solved]): DataFrame = {
    val rows = blocks.flatMap { solved =>
      val rank = if (solved.ids.isEmpty) 0 else solved.factors.length / solved.ids.length
      solved.ids.indices.iterator.map(i => solved.ids(i) -> solved.factors.slice(i * rank, (i + 1) * rank))
    }
    dataset.sparkSession.createDataset(rows)(Row).toDF("id", "features")
  }
}
