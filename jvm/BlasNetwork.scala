package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.Module
import com.intel.analytics.bigdl.dllib.nn
import com.intel.analytics.bigdl.dllib.nn.Graph.ModuleNode
import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.dllib.tensor.TensorNumericMath.TensorNumeric.NumericFloat

/** A network of BigDL's own layers, whose matrix products MKL computes.
  *
  * @param parameters float [P], shared with replicas
  */
private[insitu] final class BlasNetwork(topology: Topology, val parameters: Tensor[Float]) extends Network {
  val gradients: Tensor[Float] = Tensor[Float](topology.parameters)
  private val normalizations = Seq.newBuilder[(Int, nn.SpatialBatchNormalization[Float])]
  private val graph = buildGraph()
  private val moving = normalizations.result().flatMap { case (offset, layer) =>
    Seq(offset -> layer.runningMean, offset + layer.nOutput -> layer.runningVar)
  }

  override def zeroGradients(): Unit = gradients.zero()

  override def statistics: Array[Float] = {
    val values = new Array[Float](topology.statistics)
    moving.foreach { case (offset, value) =>
      System.arraycopy(value.storage().array(), value.storageOffset() - 1, values, offset, value.nElement())
    }
    values
  }

  override def setStatistics(values: Array[Float]): Unit = {
    require(values.length == topology.statistics, s"expected ${topology.statistics} statistics, got ${values.length}")
    moving.foreach { case (offset, value) =>
      System.arraycopy(values, offset, value.storage().array(), value.storageOffset() - 1, value.nElement())
    }
  }

  override def training(): Unit = graph.training()

  override def evaluate(): Unit = graph.evaluate()

  override def backward(input: Tensor[Float], gradLogits: Tensor[Float]): Unit = graph.backward(input, gradLogits)

  override def replica(): Network = new BlasNetwork(topology, parameters)

  override def release(): Unit = ()

  override protected def compute[A](body: => A): A = body

  override protected def forwardPass(input: Tensor[Float]): Tensor[Float] = graph.forward(input).toTensor[Float]

  private def buildGraph(): nn.Graph[Float] = {
    val input = nn.Input[Float](topology.input)
    val nodes = topology.nodes.foldLeft(Map(topology.input -> input)) { (built, node) =>
      built + (node.name -> place(node, node.inputs.map(built)))
    }
    nn.Graph[Float](input, nodes(topology.output))
  }

  private def place(node: Node, inputs: Seq[ModuleNode[Float]]): ModuleNode[Float] = {
    val from = node.layer match {
      case Linear => Seq(nn.Reshape[Float](Array(node.inputShape.size), Some(true)).inputs(inputs: _*))
      case _ => inputs
    }
    layer(node).setName(node.name).inputs(from: _*)
  }

  private def layer(node: Node): Module[Float] = {
    val (weights, slopes) = (node.views(parameters), node.views(gradients))
    node.layer match {
      case Convolution((kernelH, kernelW), stride, (padH, padW), bias) =>
        nn.SpatialConvolution[Float](
          node.inputShape.channels,
          node.shape.channels,
          kernelW,
          kernelH,
          stride,
          stride,
          padW,
          padH,
          propagateBack = node.inputs.head != topology.input || topology.consumers(topology.input) > 1,
          initWeight = weights.head,
          initBias = weights.lift(1).orNull,
          initGradWeight = slopes.head,
          initGradBias = slopes.lift(1).orNull,
          withBias = bias
        )
      case BatchNormalization(epsilon, momentum) =>
        val normalization = nn.SpatialBatchNormalization[Float](
          node.shape.channels,
          epsilon,
          1 - momentum,
          initWeight = weights.head,
          initBias = weights(1),
          initGradWeight = slopes.head,
          initGradBias = slopes(1)
        )
        normalizations += node.statisticsOffset -> normalization
        normalization
      case Relu => nn.ReLU[Float]()
      case MaxPooling((kernelH, kernelW), stride, (padH, padW)) =>
        nn.SpatialMaxPooling[Float](kernelW, kernelH, stride, stride, padW, padH)
      case AveragePooling((kernelH, kernelW), stride) =>
        nn.SpatialAveragePooling[Float](kernelW, kernelH, stride, stride)
      case Concatenation => nn.JoinTable[Float](2, 0)
      case Addition => nn.CAddTable[Float]()
      case Linear =>
        nn.Linear[Float](
          node.inputShape.size,
          node.shape.channels,
          initWeight = weights.head,
          initBias = weights(1),
          initGradWeight = slopes.head,
          initGradBias = slopes(1)
        )
      case Dropout(rate) => nn.Dropout[Float](rate)
    }
  }
}
