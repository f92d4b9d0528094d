package com.intel.analytics.bigdl.insitu

import java.util.SplittableRandom
import java.util.concurrent.{
  Callable,
  CancellationException,
  CompletableFuture,
  ExecutionException,
  Executors,
  Future,
  LinkedBlockingQueue,
  Semaphore,
  ThreadFactory
}

import scala.collection.JavaConverters._
import scala.collection.mutable.ArrayBuffer

import org.apache.hadoop.conf.Configuration

/** Decoded rows.
  *
  * @param inputs [rows, C, h, w]; of images whole numbers 0..255.
  * @param labels [rows, K].
  */
final case class Batch(inputs: Array[Float], labels: Array[Float], rows: Int)

/** Training batches of one worker without end, decoded ahead.
  *
  * Order and augmentation are pure functions of seed, epoch, step, rank. Memory holds a window of encoded rows and up
  * to `threads` + 1 batches ahead.
  *
  * @param seed of all shuffles and changes.
  * @param localBatch rows of a batch.
  * @param windowRows rows that are shuffled together.
  * @param steps batches of an epoch; the rows that are left of its order are dropped.
  * @param firstStep steps of the run that are already done.
  * @param threads batches decoded at once.
  */
final class TrainingBatches(
    shard: Shard,
    source: Source,
    augment: Augment,
    seed: Long,
    localBatch: Int,
    windowRows: Int,
    rank: Int,
    steps: Int,
    firstStep: Int,
    threads: Int,
    hadoop: Configuration
) extends Iterator[Batch]
    with AutoCloseable {
  require(
    steps > 0 && steps.toLong * localBatch <= shard.rows,
    s"$steps steps of $localBatch rows do not fit in the ${shard.rows} rows of worker $rank"
  )
  private val cursor = new RowGroupCursor(source, hadoop)
  private var rows: StoredRows = _
  private val batches = new Prefetch(Iterator.from(firstStep).map(read), threads, cursor)

  override def hasNext: Boolean = true

  /** @throws BadValue a row that cannot be read or decoded; the message names it. */
  override def next(): Batch = batches.take()

  /** Ends the threads, as soon as the row in hand is done. */
  override def close(): Unit = batches.close()

  private def read(step: Int): () => Batch = {
    val (epoch, done) = (step / steps, step % steps)
    if (step == firstStep || done == 0) {
      val windows = Order.epoch(shard.pieces, windowRows, Seeds.mix(seed, Seeds.Order, epoch, rank), done * localBatch)
      rows = new StoredRows(windows, cursor)
    }
    val batch = rows.take(localBatch)
    () =>
      Decoding.batch(batch, source) { (pixels, index) =>
        val own = Seeds.mix(seed, Seeds.Augment, step, rank, index)
        augment(pixels, source.height, source.width, source.channels, own)
      }
  }
}

/** Each row of one worker once, in stored order, decoded ahead; the last batch may be smaller.
  *
  * Parameters and memory as for `TrainingBatches`.
  */
final class ValidationBatches(
    shard: Shard,
    source: Source,
    localBatch: Int,
    windowRows: Int,
    threads: Int,
    hadoop: Configuration
) extends Iterator[Batch]
    with AutoCloseable {
  private val cursor = new RowGroupCursor(source, hadoop)
  private val rows = new StoredRows(Order.stored(shard.pieces, windowRows), cursor)
  private val starts = 0 until shard.rows by localBatch
  private val batches = new Prefetch(starts.iterator.map(read), threads, cursor)
  private var given = 0

  override def hasNext: Boolean = given < starts.length

  /** @throws BadValue a row that cannot be read or decoded; the message names it. */
  override def next(): Batch = {
    if (!hasNext) throw new NoSuchElementException(s"all ${starts.length} batches were given")
    val batch = batches.take()
    given += 1
    batch
  }

  /** Ends the threads, as soon as the row in hand is done. */
  override def close(): Unit = batches.close()

  private def read(start: Int): () => Batch = {
    val batch = rows.take(math.min(localBatch, shard.rows - start))
    () => Decoding.batch(batch, source)((pixels, _) => pixels)
  }
}

/** Seeds for independent random numbers. */
private[insitu] object Seeds {
  val Order = 0
  val Augment = 1

  /** One seed from several numbers (the finalizer of SplitMix64, folded). */
  def mix(parts: Long*): Long = parts.foldLeft(0L) { (hash, part) =>
    val sum = (hash ^ part) + 0x9e3779b97f4a7c15L
    val once = (sum ^ (sum >>> 30)) * 0xbf58476d1ce4e5b9L
    val twice = (once ^ (once >>> 27)) * 0x94d049bb133111ebL
    twice ^ (twice >>> 31)
  }
}

/** Consecutive pieces of a worker's rows, read together.
  *
  * @param order the training order of the pieces' rows, laid end to end.
  */
private[insitu] final case class Window(pieces: Array[Piece], order: Array[Int]) {
  def rows: Int = pieces.map(_.offsets.length).sum
}

private[insitu] object Order {

  /** A worker's windows in training order, from row `firstRow` of that order on.
    *
    * @param seed the same seed gives the same order.
    */
  def epoch(pieces: Array[Piece], windowRows: Int, seed: Long, firstRow: Int): Iterator[Window] = {
    val shuffled = permutation(pieces.length, Seeds.mix(seed, -1)).map(pieces(_))
    windows(shuffled, windowRows).zipWithIndex
      .map { case (window, index) =>
        val skipped = math.max(0, firstRow - index * windowRows)
        window.copy(order = permutation(window.rows, Seeds.mix(seed, index)).drop(skipped))
      }
      .filter(_.order.nonEmpty)
  }

  /** A worker's windows as they are stored. */
  def stored(pieces: Array[Piece], windowRows: Int): Iterator[Window] = windows(pieces, windowRows)

  private def windows(pieces: Array[Piece], windowRows: Int): Iterator[Window] = {
    val left = pieces.iterator.buffered
    var used = 0 // rows of left.head
    Iterator.continually(()).takeWhile(_ => left.hasNext).map { _ =>
      val window = ArrayBuffer[Piece]()
      var missing = windowRows
      while (missing > 0 && left.hasNext) {
        val piece = left.head
        val part = piece.offsets.slice(used, used + missing)
        window += piece.copy(offsets = part)
        missing -= part.length
        used += part.length
        if (used == piece.offsets.length) { left.next(); used = 0 }
      }
      Window(window.toArray, Array.range(0, windowRows - missing))
    }
  }

  private def permutation(size: Int, seed: Long): Array[Int] = {
    val random = new SplittableRandom(seed)
    val order = Array.range(0, size)
    for (i <- size - 1 to 1 by -1) {
      val other = random.nextInt(i + 1)
      val kept = order(i)
      order(i) = order(other)
      order(other) = kept
    }
    order
  }
}

/** The encoded rows of windows, in their order; a window is held at a time. */
private final class StoredRows(windows: Iterator[Window], cursor: RowGroupCursor) {
  private var window: Iterator[Row] = Iterator.empty

  def take(count: Int): Array[Row] = Array.fill(count) {
    if (!window.hasNext) {
      window = Iterator.empty // before the next one is read
      window = read(windows.next())
    }
    window.next()
  }

  private def read(window: Window): Iterator[Row] = {
    val rows = window.pieces.flatMap(piece => cursor.take(piece))
    window.order.iterator.map { index =>
      val row = rows(index)
      rows(index) = null
      row
    }
  }
}

private[insitu] object Decoding {

  /** Decodes rows.
    *
    * @param change what becomes of an image's pixels, uint8 [h, w, C], given the row's index.
    */
  def batch(rows: Array[Row], source: Source)(change: (Array[Byte], Int) => Array[Byte]): Batch = {
    val inputs = new Array[Float](rows.length * source.size)
    for ((row, index) <- rows.zipWithIndex) {
      if (Thread.interrupted()) throw new InterruptedException
      BadRow.naming(row.place)(one(row.input, source, inputs, index)(change(_, index)))
    }
    Batch(inputs, rows.flatMap(_.label), rows.length)
  }

  /** Decodes one row to its place among `inputs`, as planes; leaves them as they are where it is bad.
    *
    * @throws BadValue it is no image.
    */
  def one(input: Stored, source: Source, inputs: Array[Float], index: Int)(change: Array[Byte] => Array[Byte]): Unit = {
    val plane = source.height * source.width
    def start(channel: Int) = (index * source.channels + channel) * plane
    input match {
      case StoredTensor(values) =>
        for (channel <- 0 until source.channels) spread(values, channel, source.channels, inputs, start(channel))
      case StoredImage(bytes) =>
        val pixels = change(Images.decode(bytes, source.height, source.width, source.channels))
        for (channel <- 0 until source.channels) spread(pixels, channel, source.channels, inputs, start(channel))
    }
  }

  /** Writes one channel of float [h, w, C] as a plane. */
  private def spread(values: Array[Float], channel: Int, channels: Int, to: Array[Float], start: Int): Unit = {
    var (from, target) = (channel, start)
    while (from < values.length) {
      to(target) = values(from)
      from += channels
      target += 1
    }
  }

  /** Writes one channel of uint8 [h, w, C] as a plane. */
  private def spread(pixels: Array[Byte], channel: Int, channels: Int, to: Array[Float], start: Int): Unit = {
    var (from, target) = (channel, start)
    while (from < pixels.length) {
      to(target) = (pixels(from) & 0xff).toFloat
      from += channels
      target += 1
    }
  }
}

/** Runs work ahead of its use, on daemon threads: one takes it from `work`, `threads` do it.
  *
  * @param work in order; each item makes a batch.
  * @param opened closed when no more work is taken.
  */
private final class Prefetch(work: Iterator[() => Batch], threads: Int, opened: AutoCloseable) extends AutoCloseable {
  private val room = new Semaphore(threads + 1)
  private val ahead = new LinkedBlockingQueue[Future[Batch]]
  private val workers = Executors.newFixedThreadPool(threads, daemons("insitu-decode"))
  private val reader = daemons("insitu-read").newThread(() => read())
  @volatile private var failure: Option[Throwable] = None
  reader.start()

  /** The next batch, waiting for it.
    *
    * @throws IllegalStateException closed; and whatever the work throws, again at every call.
    */
  def take(): Batch = {
    failure.foreach(throw _)
    try {
      val batch = ahead.take().get()
      room.release()
      batch
    } catch {
      case error: ExecutionException =>
        failure = failure.orElse(Some(error.getCause))
        throw failure.get
      case _: CancellationException => throw failure.get
    }
  }

  override def close(): Unit = {
    failure = Some(new IllegalStateException("these batches are closed"))
    reader.interrupt()
    workers.shutdownNow().asScala.foreach { case waiting: Future[_] => waiting.cancel(false) }
    ahead.clear()
    fail(failure.get)
  }

  private def read(): Unit =
    try {
      room.acquire()
      while (work.hasNext) {
        val item = work.next()
        ahead.put(workers.submit(new Callable[Batch] { override def call(): Batch = item() }))
        room.acquire()
      }
    } catch { case error: Throwable => fail(error) } // also of memory: the caller of take must not wait for ever
    finally opened.close()

  private def fail(error: Throwable): Unit = {
    val failed = new CompletableFuture[Batch]
    failed.completeExceptionally(error)
    ahead.put(failed)
  }

  private def daemons(name: String): ThreadFactory = task => {
    val thread = new Thread(task, name)
    thread.setDaemon(true)
    thread
  }
}
