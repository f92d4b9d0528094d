package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.dllib.utils.RandomGenerator

/** A network that computes, for a fixed number of rows.
  *
  * Legend: B the rows, C channels, H height, W width, K outputs, P parameters, S statistics. One thread at a time may
  * use it, any thread.
  */
abstract class Network {
  private var dropoutSeed: Option[Long] = None

  /** Float [P], in use: what is written here is what the next forward pass computes with. */
  def parameters: Tensor[Float]

  /** Float [P]: the sum over the backward passes since `zeroGradients`. */
  def gradients: Tensor[Float]

  def zeroGradients(): Unit

  /** Moving means and variances [S], in the order of `insitu.bigdl.convert`. */
  def statistics: Array[Float]

  def setStatistics(values: Array[Float]): Unit

  /** From now on batches are normalised by themselves and dropout drops; a new network does this. */
  def training(): Unit

  /** From now on batches are normalised by the statistics and dropout does nothing. */
  def evaluate(): Unit

  /** Float [B, C, H, W], contiguous, scaled as the model wants it → logits, float [B, K], until the next forward. */
  final def forward(input: Tensor[Float]): Tensor[Float] = compute {
    dropoutSeed.foreach(RandomGenerator.RNG.setSeed)
    dropoutSeed = None
    forwardPass(input)
  }

  /** Adds the gradients of a training forward pass on the same `input`; `gradLogits` is float [B, K], contiguous. */
  def backward(input: Tensor[Float], gradLogits: Tensor[Float]): Unit

  /** Another network of the same parameters, the same tensor, with gradients, statistics and buffers of its own. */
  def replica(): Network

  /** Makes the dropout masks of the next forward pass a function of the low 32 bits of `seed`. */
  final def seedDropout(seed: Long): Unit = dropoutSeed = Some(seed)

  /** Frees what the garbage collector does not know of; the network cannot be used afterwards. */
  def release(): Unit

  /** Runs `body` on the thread that this network computes on. */
  protected def compute[A](body: => A): A

  protected def forwardPass(input: Tensor[Float]): Tensor[Float]
}

object Network {

  /** @param topologyJson as `insitu.bigdl.convert` writes it
    * @param engine `mklblas`, which computes on the calling thread, or `mkldnn`, which computes on the one thread that
    *   BigDL keeps for it, Engine.dnnComputing, and OpenMP threads of that
    * @param batch the rows of every input
    */
  def build(topologyJson: String, engine: String, batch: Int): Network = {
    require(batch > 0, s"batch: $batch, expected at least 1")
    val topology = Topology.parse(topologyJson)
    engine match {
      case "mklblas" => new BlasNetwork(topology, Tensor[Float](topology.parameters))
      case "mkldnn" => new DnnNetwork(topology, batch)
      case _ => throw new IllegalArgumentException(s"engine: $engine, expected mklblas or mkldnn")
    }
  }
}
