package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.Module
import com.intel.analytics.bigdl.dllib.nn.Graph.ModuleNode
import com.intel.analytics.bigdl.dllib.nn.mkldnn
import com.intel.analytics.bigdl.dllib.nn.mkldnn.Phase.TrainingPhase
import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.dllib.tensor.TensorNumericMath.TensorNumeric.NumericFloat
import com.intel.analytics.bigdl.dllib.utils.Engine
import com.intel.analytics.bigdl.mkl.Memory

/** A network of oneDNN's layers, compiled for training with `batch` rows; it evaluates with the same primitives. */
private[insitu] final class DnnNetwork(topology: Topology, batch: Int) extends Network {
  val parameters: Tensor[Float] = Tensor[Float](topology.parameters)
  val gradients: Tensor[Float] = Tensor[Float](topology.parameters)
  private val normalizations = Seq.newBuilder[(Int, mkldnn.MovingBatchNormalization)]
  private val graph = compute(buildGraph())
  private val moving = normalizations.result()
  private val layers = graph.modules.collect { case layer: mkldnn.MklDnnLayer => layer }
  private var hasGradients = false
  setStatistics(new Array[Float](topology.statistics))

  override def zeroGradients(): Unit = {
    gradients.zero()
    hasGradients = false
  }

  override def statistics: Array[Float] = {
    val values = new Array[Float](topology.statistics)
    for ((offset, layer) <- moving; (value, index) <- layer.statistics.zipWithIndex) {
      System.arraycopy(value.storage().array(), 0, values, offset + index * layer.nOutput, layer.nOutput)
    }
    values
  }

  override def setStatistics(values: Array[Float]): Unit = {
    require(values.length == topology.statistics, s"expected ${topology.statistics} statistics, got ${values.length}")
    moving.foreach { case (offset, layer) =>
      val Seq(mean, variance) = Seq(offset, offset + layer.nOutput).map { from =>
        Tensor[Float](values.slice(from, from + layer.nOutput), Array(layer.nOutput))
      }
      layer.setStatistics(mean, variance)
    }
  }

  override def training(): Unit = compute(graph.training())

  override def evaluate(): Unit = compute(graph.evaluate())

  /** oneDNN writes gradients over those before. */
  override def backward(input: Tensor[Float], gradLogits: Tensor[Float]): Unit = {
    val before = if (hasGradients) Some(gradients.clone()) else None
    compute(graph.backward(input, gradLogits))
    before.foreach(gradients.add)
    hasGradients = true
  }

  override def replica(): Network =
    throw new UnsupportedOperationException("mkldnn has one network on an executor, which uses all of its cores")

  override def release(): Unit = compute(graph.release())

  override protected def compute[A](body: => A): A = Engine.dnnComputing.invokeAndWait2(Seq(() => body)).head.get()

  override protected def forwardPass(input: Tensor[Float]): Tensor[Float] = {
    require(input.size(1) == batch, s"expected $batch rows, got ${input.size(1)}")
    if (!graph.isTraining()) {
      layers.foreach(_.paramsMMap()._1.foreach(_.sync())) // which oneDNN's layers do when they train
    }
    graph.forward(input).toTensor[Float]
  }

  private def buildGraph(): mkldnn.OnePassGraph = {
    val shape = Array(batch, topology.inputShape.channels, topology.inputShape.height, topology.inputShape.width)
    val input = mkldnn.Input(shape, Memory.Format.nchw).setName(topology.input).inputs()
    val nodes = topology.nodes.foldLeft(Map(topology.input -> input)) { (built, node) =>
      built + (node.name -> place(node, node.inputs.map(built)))
    }
    val built = new mkldnn.OnePassGraph(input, mkldnn.Output(Memory.Format.nc).inputs(nodes(topology.output)))
    built.compile(TrainingPhase)
    built
  }

  private def place(node: Node, inputs: Seq[ModuleNode[Float]]): ModuleNode[Float] = {
    val built = layer(node)
    val (weights, slopes) = built.parameters() match {
      case null => (Array.empty[Tensor[Float]], Array.empty[Tensor[Float]])
      case both => both
    }
    attach(weights, parameters, node.offset)
    attach(slopes, gradients, node.offset)
    built.setName(node.name).inputs(inputs: _*)
  }

  /** Moves a layer's tensors into the flat vector. */
  private def attach(tensors: Array[Tensor[Float]], flat: Tensor[Float], offset: Int): Unit =
    tensors.zip(tensors.scanLeft(offset)(_ + _.nElement())).foreach { case (tensor, from) =>
      tensor.set(flat.storage(), from + 1, tensor.size())
    }

  private def layer(node: Node): Module[Float] = {
    val weights = node.views(parameters)
    node.layer match {
      case Convolution(kernel, stride, padding, bias) =>
        new mkldnn.OnePassConvolution(
          node.inputShape.channels,
          node.shape.channels,
          kernel,
          stride,
          padding,
          bias,
          weights.head,
          propagate = node.inputs.head != topology.input || topology.consumers(topology.input) > 1
        )
      case BatchNormalization(epsilon, momentum) =>
        val normalization =
          new mkldnn.MovingBatchNormalization(node.shape.channels, epsilon, momentum, weights.head, weights(1))
        normalizations += node.statisticsOffset -> normalization
        normalization
      case Relu => mkldnn.ReLU()
      case MaxPooling((kernelH, kernelW), stride, (padH, padW)) =>
        mkldnn.MaxPooling(kernelW, kernelH, stride, stride, padW, padH).floor()
      case AveragePooling((kernelH, kernelW), stride) =>
        mkldnn.AvgPooling(kernelW, kernelH, stride, stride).floor()
      case Concatenation => new mkldnn.Concatenation
      case Addition => new mkldnn.SeparateAddition
      case Linear => new mkldnn.OnePassLinear(node.inputShape.size, node.shape.channels, weights.head, weights(1))
      case Dropout(rate) => mkldnn.Dropout(rate)
    }
  }
}
