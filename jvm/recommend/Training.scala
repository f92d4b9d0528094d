package insitu.recommend.als

import scala.annotation.tailrec
import scala.util.{Failure, Success, Try}

import org.apache.spark.SparkException
import org.apache.spark.internal.Logging
import org.apache.spark.ml.recommendation.SparkInternals
import org.apache.spark.rdd.RDD
import org.apache.spark.storage.StorageLevel

/** How a training is spread and kept.
  *
  * @param checkpointInterval iterations between checkpoints in the context's checkpoint directory; -1 for none.
  * @param level of blocks while the training goes on.
  * @param finalLevel of the factors that it ends with.
  */
private[als] final case class Plan(
    userBlocks: Int,
    itemBlocks: Int,
    iterations: Int,
    checkpointInterval: Int,
    level: StorageLevel,
    finalLevel: StorageLevel,
    seed: Long
)

/** An iteration that is done.
  *
  * @param loss the mean squared error of the ratings; of implicit feedback, the sum over all pairs of user and item by
  *   confidence, divided by the number of ratings.
  */
private[als] final case class Iteration(number: Int, loss: Double, seconds: Double)

/** Alternating least squares over blocks of users and items (Zhou et al. 2008, doi:10.1007/978-3-540-68880-8_32).
  *
  * Ratings are compressed once for each side. In a half-iteration every block of one side sends each block of the other
  * the factors that it needs, as in MLlib, and that one solves its rows. An executor that is lost costs the iteration
  * that was under way; where its factors had no second copy, those since the last checkpoint.
  */
private[als] final class Training(ratings: RDD[Ratings], problem: Problem, plan: Plan, tell: Iteration => Unit)
    extends Logging {
  import Training._

  private val context = ratings.sparkContext
  private val (userRatings, itemRatings) = {
    val (users, items) = Sides.byUserAndItem(ratings, plan.userBlocks, plan.itemBlocks)
    (users.persist(plan.level), items.persist(plan.level))
  }
  private val users = Side(userRatings, Sides.routes(userRatings, itemRatings).persist(plan.level), plan.itemBlocks)
  private val items = Side(itemRatings, Sides.routes(itemRatings, userRatings).persist(plan.level), plan.userBlocks)

  /** Train, and give the users' and the items' factors.
    *
    * @throws IllegalArgumentException there is no rating.
    */
  def run(): (RDD[Solved], RDD[Solved]) =
    try {
      val count = persevering(() => userRatings.map(_.ratings.length.toLong).fold(0L)(_ + _))
      require(count > 0, "there is no rating to train from")
      val begin = new HalfIteration(problem, plan.level)
      val seeds = SparkInternals.random(plan.seed)
      val (userSeed, itemSeed) = (seeds.nextLong(), seeds.nextLong())
      val first = State(0, begin.random(users, userSeed), None)
      persevering(() => first.users.send())
      val trained = iterate(first, count)
      (trained.users.blocks, trained.items.getOrElse(begin.random(items, itemSeed)).blocks)
    } finally Seq(userRatings, itemRatings, users.routes, items.routes).foreach(_.unpersist(blocking = false))

  private def iterate(first: State, count: Long): State = {
    var (state, saved) = (first, first)
    while (state.iteration < plan.iterations) {
      val started = System.nanoTime()
      val next = persevering(() => after(state), otherwise = () => { if (state ne saved) state.drop(); state = saved })
      if (state ne saved) state.drop()
      if (isSaved(next.iteration)) {
        saved.drop()
        saved = next
      }
      state = next
      val loss = math.max(0, state.users.loss / count) // a difference of sums, which rounding may leave below 0
      tell(Iteration(state.iteration, loss, (System.nanoTime() - started) / 1e9))
    }
    if (saved ne state) saved.drop()
    state
  }

  private def after(state: State): State = {
    val number = state.iteration + 1
    val isLast = number == plan.iterations
    val half = new HalfIteration(problem, lasting(if (isLast) plan.finalLevel else plan.level))
    val newItems = half.solve(state.users, items, state.items, isSaved(number))
    newItems.send()
    val newUsers = half.solve(newItems, users, Some(state.users), isSaved(number))
    if (isLast) newUsers.keep() else newUsers.send()
    if (Seq(newItems.loss, newUsers.loss).exists(loss => loss.isNaN || loss.isInfinite))
      throw new ArithmeticException("the factors left single precision; are ratings huge?")
    State(number, newUsers, Some(newItems))
  }

  private def isSaved(iteration: Int): Boolean = context.getCheckpointDir.isDefined &&
    plan.checkpointInterval > 0 && iteration % plan.checkpointInterval == 0

  /** The level, with a second copy where there is an executor to hold it. */
  private def lasting(level: StorageLevel): StorageLevel = {
    val executors = context.getExecutorMemoryStatus.size - 1
    val copies = if (executors > 1) math.max(2, level.replication) else level.replication
    StorageLevel(level.useDisk, level.useMemory, level.useOffHeap, level.deserialized, copies)
  }

  /** What `action` gives, tried again where executors were lost.
    *
    * @param otherwise what to do where blocks were lost with them that cannot be computed again.
    */
  @tailrec
  private def persevering[T](action: () => T, otherwise: () => Unit = () => (), attempts: Int = Attempts): T = {
    val tried = Try(action())
    tried match {
      case Success(value) => value
      case Failure(error: SparkException) if attempts > 0 && LostExecutor.exists(error.getMessage.contains(_)) =>
        logWarning(s"an executor was lost while ALS was training; going on without what it had")
        if (error.getMessage.contains(LostBlock)) otherwise()
        persevering(action, otherwise, attempts - 1)
      case Failure(error) => throw error
    }
  }
}

private object Training {

  /** Factors after an iteration; before the first there are none of the items. */
  final case class State(iteration: Int, users: Factors, items: Option[Factors]) {
    def drop(): Unit = (items.toSeq :+ users).foreach(_.drop())
  }

  val Attempts = 3
  val LostBlock = "Checkpoint block"

  /** What Spark says of a job whose executor was lost, where it does not try again by itself. */
  val LostExecutor = Seq(LostBlock, "FetchFailed", "ExecutorLostFailure", "Could not find block")
}
