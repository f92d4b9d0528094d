package com.intel.analytics.bigdl.insitu

/** A variable's place in the flat vector of parameters.
  *
  * @param kernel whether it has more than one dimension: weight decay and LARS's own rates are for these.
  */
final case class Segment(offset: Int, size: Int, kernel: Boolean)

/** An update rule on a slice of the flat vector, equal to that of `insitu.training.optimizers`.
  *
  * @param name adam, adadelta, sgd or lars.
  */
final case class Optimizer(
    name: String,
    momentum: Float = 0,
    weightDecay: Float = 0,
    trustCoefficient: Float = 0,
    clipNorm: Option[Float] = None
) {

  /** Vectors of the parameters' size that it keeps. */
  def slots: Int = if (name == "sgd" || name == "lars") 1 else 2

  /** Whether `update` needs the norms of whole variables. */
  def needsNorms: Boolean = name == "lars" || clipNorm.isDefined

  /** One step on a slice.
    *
    * @param weights, gradients, slots of the slice; weights and slots change.
    * @param segments the variables, in the slice's own offsets, cut to the slice.
    * @param rate the learning rate.
    * @param step optimiser steps done before this one.
    * @param norms L2 norms of each whole variable and of its gradient; empty unless `needsNorms`.
    */
  def update(
      weights: Array[Float],
      gradients: Array[Float],
      slots: Array[Array[Float]],
      segments: Array[Segment],
      rate: Float,
      step: Int,
      norms: Array[Norms]
  ): Unit = {
    val clip = clipNorm.fold(1f) { limit =>
      val whole = math.sqrt(norms.map(norm => norm.gradient * norm.gradient).sum)
      if (whole > limit) (limit / whole).toFloat else 1f
    }
    for ((segment, index) <- segments.zipWithIndex if segment.size > 0) {
      val (from, to) = (segment.offset, segment.offset + segment.size)
      name match {
        case "adam" => adam(weights, gradients, slots(0), slots(1), from, to, rate, step, clip)
        case "adadelta" => adadelta(weights, gradients, slots(0), slots(1), from, to, rate, clip)
        case "sgd" => sgd(weights, gradients, slots(0), from, to, rate, clip, decay(segment))
        case "lars" =>
          val own = if (segment.kernel) larsRate(norms(index), clip) else trustCoefficient
          sgd(weights, gradients, slots(0), from, to, rate * own, clip, decay(segment))
      }
    }
  }

  private def decay(segment: Segment): Float = if (segment.kernel) weightDecay else 0f

  private def larsRate(norm: Norms, clip: Float): Float = {
    val below = clip * norm.gradient + weightDecay * norm.weight
    val rate = if (below == 0) 0.0 else trustCoefficient * norm.weight / below
    if (rate > 0) rate.toFloat else 1f
  }

  private def sgd(
      weights: Array[Float],
      gradients: Array[Float],
      velocity: Array[Float],
      from: Int,
      to: Int,
      rate: Float,
      clip: Float,
      decay: Float
  ): Unit = {
    var i = from
    while (i < to) {
      velocity(i) = momentum * velocity(i) - rate * (clip * gradients(i) + decay * weights(i))
      weights(i) += velocity(i)
      i += 1
    }
  }

  private def adam(
      weights: Array[Float],
      gradients: Array[Float],
      mean: Array[Float],
      square: Array[Float],
      from: Int,
      to: Int,
      rate: Float,
      step: Int,
      clip: Float
  ): Unit = {
    val (beta1, beta2, epsilon) = (0.9f, 0.999f, 1e-7f)
    val scale = (rate * math.sqrt(1 - math.pow(beta2, step + 1)) / (1 - math.pow(beta1, step + 1))).toFloat
    var i = from
    while (i < to) {
      val gradient = clip * gradients(i)
      mean(i) += (gradient - mean(i)) * (1 - beta1)
      square(i) += (gradient * gradient - square(i)) * (1 - beta2)
      weights(i) -= scale * mean(i) / (math.sqrt(square(i)).toFloat + epsilon)
      i += 1
    }
  }

  private def adadelta(
      weights: Array[Float],
      gradients: Array[Float],
      gradientSquare: Array[Float],
      deltaSquare: Array[Float],
      from: Int,
      to: Int,
      rate: Float,
      clip: Float
  ): Unit = {
    val (rho, epsilon) = (0.95f, 1e-7f)
    var i = from
    while (i < to) {
      val gradient = clip * gradients(i)
      gradientSquare(i) = rho * gradientSquare(i) + (1 - rho) * gradient * gradient
      val delta = -gradient * math.sqrt((deltaSquare(i) + epsilon) / (gradientSquare(i) + epsilon)).toFloat
      deltaSquare(i) = rho * deltaSquare(i) + (1 - rho) * delta * delta
      weights(i) += rate * delta
      i += 1
    }
  }
}

/** L2 norms of a variable and of its gradient. */
final case class Norms(weight: Double, gradient: Double)
