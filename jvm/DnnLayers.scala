package com.intel.analytics.bigdl.dllib.nn.mkldnn

import com.intel.analytics.bigdl.dllib.nn.Graph.ModuleNode
import com.intel.analytics.bigdl.dllib.nn.abstractnn.Activity
import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.mkl.Memory

/** A graph whose gradients are right also where a layer has several consumers.
  *
  * DnnGraph adds up in place what a layer's consumers hand back, and visits the layers twice, for the gradients of the
  * inputs and then for those of the parameters: the second visit would see some of it doubled. Here there is one visit,
  * which computes a layer's parameter gradients with those of its input. And it prepares to change the layout of what
  * the first consumer hands back alone; here, of what each does.
  */
private[bigdl] class OnePassGraph(input: ModuleNode[Float], output: ModuleNode[Float])
    extends DnnGraph(Seq(input), Seq(output)) {

  override private[bigdl] def initBwdPrimitives(grads: Array[MemoryData], phase: Phase)
      : (Array[MemoryData], Array[MemoryData]) = {
    val formats = super.initBwdPrimitives(grads, phase)
    for (node <- backwardGraph.topologySort; (consumer, edge) <- node.prevNodesAndEdges.drop(1)) {
      (node.element, consumer.element) match {
        case (layer: MklDnnLayer, from: MklDnnLayer) =>
          val handed = from.gradInputFormats()
          val index = if (handed.length == 1) 0 else consumer.nextEdges.indexOf(edge)
          reorderManager.register(handed(index), layer.gradOutputFormats()(0))
        case _ => // the dummy that ends the graph
      }
    }
    formats
  }

  override private[bigdl] def initGradWPrimitives(grads: Array[MemoryData], phase: Phase): Array[MemoryData] = {
    modules.foreach { module =>
      val layer = module.asInstanceOf[MklDnnLayer]
      layer.initGradWPrimitives(layer.gradOutputFormats(), phase)
    }
    grads
  }

  override def accGradParameters(input: Activity, gradOutput: Activity): Unit = ()
}

/** A layer that computes its parameters' gradients in the visit for its input's, in whatever layout they are handed. */
private[bigdl] trait OnePassGradients extends MklDnnLayer {
  @transient private lazy val reorders = new ReorderManager

  /** Whether the gradient of the input is wanted; without, it is not defined. */
  protected def propagate: Boolean

  abstract override private[mkldnn] def initGradWPrimitives(grad: Array[MemoryData], phase: Phase)
      : Array[MemoryData] = {
    val wanted = super.initGradWPrimitives(grad, phase)
    reorders.setRuntime(runtime)
    reorders.register(gradOutputFormats()(0), wanted(0))
    wanted
  }

  abstract override def updateGradInput(input: Activity, gradOutput: Activity): Activity = {
    super.accGradParameters(input, reorders.infer(gradOutputFormats(), gradOutputWeightFormats(), gradOutput))
    if (propagate) super.updateGradInput(input, gradOutput) else gradInput
  }

  override def accGradParameters(input: Activity, gradOutput: Activity): Unit = ()
}

private[bigdl] class OnePassConvolution(
    inputs: Int,
    outputs: Int,
    kernel: (Int, Int),
    stride: Int,
    padding: (Int, Int),
    bias: Boolean,
    weight: Tensor[Float],
    protected val propagate: Boolean
) extends SpatialConvolution(
      nInputPlane = inputs,
      nOutputPlane = outputs,
      kernelW = kernel._2,
      kernelH = kernel._1,
      strideW = stride,
      strideH = stride,
      padW = padding._2,
      padH = padding._1,
      initWeight = weight,
      initBias = Tensor[Float](outputs),
      withBias = bias
    )
    with OnePassGradients

private[bigdl] class OnePassLinear(inputs: Int, outputs: Int, weight: Tensor[Float], bias: Tensor[Float])
    extends Linear(inputs, outputs, initWeight = weight, initBias = bias)
    with OnePassGradients {
  protected def propagate: Boolean = true
}

/** A sum whose inputs' gradients are tensors of their own: CAddTable hands its one gradient to all, and the graph adds
  * to it in place wherever such an input has other consumers too.
  */
private[bigdl] class SeparateAddition extends CAddTable {
  private var copies: Seq[Tensor[Float]] = Seq.empty

  override private[mkldnn] def initBwdPrimitives(grad: Array[MemoryData], phase: Phase)
      : (Array[MemoryData], Array[MemoryData]) = {
    super.initBwdPrimitives(singleNativeData(grad), phase)
    val format = gradOutputFormats()(0)
    // The graph tells reorders apart by the identity of what they read.
    _gradInputFormats = inputFormats().map(_ => NativeData(format.shape, format.layout))
    gradInputFormats().foreach(_.getPrimitive(runtime))
    copies = gradInputFormats().tail.toSeq.map(initTensor(_).asInstanceOf[Tensor[Float]])
    (gradOutputFormats(), gradInputFormats())
  }

  override def updateGradInput(input: Activity, gradOutput: Activity): Activity = {
    val gradient = gradOutput.asInstanceOf[Tensor[Float]]
    gradInput.toTable(1) = gradient
    copies.zipWithIndex.foreach { case (copy, index) => gradInput.toTable(index + 2) = copy.copy(gradient) }
    gradInput
  }
}

/** A concatenation of any numbers of channels.
  *
  * JoinTable cuts its gradient at the inputs' channels; within the blocks of channels that oneDNN lays tensors out in,
  * it cannot, and its native code ends the process.
  */
private[bigdl] class Concatenation extends JoinTable(2) {
  private var blocked = false

  override private[mkldnn] def initFwdPrimitives(inputs: Array[MemoryData], phase: Phase)
      : (Array[MemoryData], Array[MemoryData]) = {
    blocked = inputs.forall(_.shape(1) % Concatenation.LargestBlock == 0)
    super.initFwdPrimitives(inputs.map(laidOut), phase)
  }

  override private[mkldnn] def initBwdPrimitives(grads: Array[MemoryData], phase: Phase)
      : (Array[MemoryData], Array[MemoryData]) = super.initBwdPrimitives(grads.map(laidOut), phase)

  private def laidOut(format: MemoryData): MemoryData =
    if (blocked) format else NativeData(format.shape, Memory.Format.nchw)
}

private object Concatenation {
  private val LargestBlock = 16
}

/** Batch normalisation that keeps its moving averages as Keras does: v ← momentum · v + (1 - momentum) · batch.
  *
  * BigDL's keeps sums, s ← momentum · s + batch, and their weight, scaleFactor, which would have to grow from 1 to
  * 1 / (1 - momentum) first; here it stands there from the beginning.
  */
private[bigdl] class MovingBatchNormalization(
    channels: Int,
    epsilon: Double,
    keep: Double,
    weight: Tensor[Float],
    bias: Tensor[Float]
) extends SpatialBatchNormalization(channels, epsilon, keep, weight, bias) {
  private val weightOfSums = (1 / (1 - keep)).toFloat

  /** Moving mean and variance, copies of [channels]. */
  def statistics: Seq[Tensor[Float]] =
    Seq(runningMean, runningVariance).map(sums => Tensor[Float](channels).copy(sums.native[Float]).div(weightOfSums))

  def setStatistics(mean: Tensor[Float], variance: Tensor[Float]): Unit = {
    scaleFactor = weightOfSums
    Seq(runningMean -> mean, runningVariance -> variance).foreach { case (sums, value) =>
      sums.native[Float].copy(value.clone().mul(weightOfSums))
    }
  }

  override def updateOutput(input: Activity): Activity = {
    val output = super.updateOutput(input)
    scaleFactor = weightOfSums
    output
  }

  override def evaluate(): this.type = keepingFormats(super.evaluate())

  override def training(): this.type = keepingFormats(super.training())

  /** Changes the phase and keeps the objects that describe input and output, by whose identity the graph finds its
    * reorders; the other phase's own are equal.
    */
  private def keepingFormats(change: => Unit): this.type = {
    val (before, after) = (inputFormats()(0), outputFormats()(0))
    change
    require(inputFormats()(0) == before && outputFormats()(0) == after, s"$getName: phases of different layouts")
    inputFormats()(0) = before
    outputFormats()(0) = after
    this
  }
}
