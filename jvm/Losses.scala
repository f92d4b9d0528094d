package com.intel.analytics.bigdl.insitu

/** A head's loss and scores, from logits; the losses are those of `insitu.tasks`.
  *
  * Arrays are flat: logits and scores [rows, K], labels [rows, width].
  */
sealed trait Head extends Serializable {

  /** Adds up the rows' losses, and writes `scale` times each row's gradient over the logits.
    *
    * @return the sum of the rows' losses.
    */
  def loss(logits: Array[Float], labels: Array[Float], rows: Int, scale: Float): Double

  /** Replaces logits by scores, 0..1. */
  def score(logits: Array[Float], rows: Int): Unit
}

object Head {

  /** @param activation softmax or sigmoid.
    * @param weights of the classes, [K] for softmax, [2, K] (labels 0 and 1) for sigmoid; empty for none.
    */
  def apply(activation: String, weights: Array[Float]): Head = activation match {
    case "softmax" => new Softmax(weights)
    case "sigmoid" => new Sigmoid(weights)
  }
}

/** One class of K, labels 0..K-1 [rows, 1]: categorical cross-entropy. */
private final class Softmax(weights: Array[Float]) extends Head {

  def loss(logits: Array[Float], labels: Array[Float], rows: Int, scale: Float): Double = {
    val classes = logits.length / rows
    val raw = logits.clone()
    score(logits, rows)
    var sum = 0.0
    for (row <- 0 until rows) {
      val from = row * classes
      val label = labels(row).toInt
      val weight = if (weights.isEmpty) 1f else weights(label)
      sum += weight * (logSumExp(raw, from, classes) - raw(from + label))
      logits(from + label) -= 1
      for (i <- from until from + classes) logits(i) *= weight * scale
    }
    sum
  }

  def score(logits: Array[Float], rows: Int): Unit = {
    val classes = logits.length / rows
    for (row <- 0 until rows) {
      val from = row * classes
      val log = logSumExp(logits, from, classes)
      for (i <- from until from + classes) logits(i) = math.exp(logits(i) - log).toFloat
    }
  }

  private def logSumExp(values: Array[Float], from: Int, count: Int): Double = {
    var largest = values(from)
    for (i <- from until from + count) largest = math.max(largest, values(i))
    var sum = 0.0
    for (i <- from until from + count) sum += math.exp(values(i) - largest)
    largest + math.log(sum)
  }
}

/** K labels of 0 or 1 [rows, K]: binary cross-entropy, averaged over the labels. */
private final class Sigmoid(weights: Array[Float]) extends Head {

  def loss(logits: Array[Float], labels: Array[Float], rows: Int, scale: Float): Double = {
    val classes = logits.length / rows
    var sum = 0.0
    for (i <- logits.indices) {
      val logit = logits(i)
      val label = labels(i)
      val weight = if (weights.isEmpty) 1f else weights((if (label > 0.5f) classes else 0) + i % classes)
      sum += weight * (math.max(logit, 0f) - logit * label + math.log1p(math.exp(-math.abs(logit))))
      logits(i) = (weight * (sigmoid(logit) - label) * scale / classes).toFloat
    }
    sum / classes
  }

  def score(logits: Array[Float], rows: Int): Unit =
    for (i <- logits.indices) logits(i) = sigmoid(logits(i)).toFloat

  private def sigmoid(logit: Float): Double = 1 / (1 + math.exp(-logit))
}
