package com.intel.analytics.bigdl.insitu

import org.json4s.{DefaultFormats, Formats}
import org.json4s.jackson.JsonMethods

/** What the workers of a training run share, made from JSON with snake-case keys.
  *
  * @param run names the run in its executors.
  * @param executors Spark's id of each worker's executor, by rank.
  * @param hosts of these executors.
  * @param engine mklblas or mkldnn.
  * @param threads of each worker.
  * @param truncated for `Exchange`.
  * @param topology JSON for `Network.build`.
  * @param segments the variables in the flat vector of parameters.
  * @param scale, offset what the network reads is `scale` times the value plus `offset`.
  * @param activation, classWeights for `Head`.
  * @param source JSON for `Source.parse`.
  * @param augment JSON for `Augment.parse`.
  * @param trainPlan, validationPlan URIs for `Shards.read`.
  * @param initial URI of a directory with the flat vectors to begin with: parameters, statistics and the optimiser's
  *   slots, the latter only where `firstStep` is not 0.
  */
final case class Settings(
    run: String,
    executors: Array[String],
    hosts: Array[String],
    engine: String,
    threads: Int,
    truncated: Boolean,
    topology: String,
    segments: Array[Segment],
    scale: Float,
    offset: Float,
    activation: String,
    classWeights: Array[Float],
    source: String,
    augment: String,
    trainPlan: String,
    validationPlan: String,
    windowRows: Int,
    seed: Long,
    localBatch: Int,
    steps: Int,
    firstStep: Int,
    optimizer: Optimizer,
    initial: String
) {
  def workers: Int = executors.length
  def globalBatch: Int = workers * localBatch
  def head: Head = Head(activation, classWeights)
}

object Settings {
  private implicit val formats: Formats = DefaultFormats

  def parse(json: String): Settings = JsonMethods.parse(json).camelizeKeys.extract[Settings]
}
