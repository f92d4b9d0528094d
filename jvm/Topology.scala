package com.intel.analytics.bigdl.insitu

import com.intel.analytics.bigdl.dllib.tensor.Tensor
import com.intel.analytics.bigdl.dllib.tensor.TensorNumericMath.TensorNumeric.NumericFloat
import org.json4s._
import org.json4s.jackson.JsonMethods

/** What a node makes of its inputs; sizes are (height, width). */
private[insitu] sealed trait Layer

/** @param padding zeros on either side, or (-1, -1) for TensorFlow's "same" */
private[insitu] final case class Convolution(kernel: (Int, Int), stride: Int, padding: (Int, Int), bias: Boolean)
    extends Layer

/** @param momentum the share that moving averages keep, as Keras has it */
private[insitu] final case class BatchNormalization(epsilon: Double, momentum: Double) extends Layer

private[insitu] case object Relu extends Layer

private[insitu] final case class MaxPooling(kernel: (Int, Int), stride: Int, padding: (Int, Int)) extends Layer

private[insitu] final case class AveragePooling(kernel: (Int, Int), stride: Int) extends Layer

/** Along the channels. */
private[insitu] case object Concatenation extends Layer

private[insitu] case object Addition extends Layer

/** With bias, of all the elements of its input. */
private[insitu] case object Linear extends Layer

/** @param rate the share of elements that is dropped */
private[insitu] final case class Dropout(rate: Double) extends Layer

private[insitu] final case class Shape(channels: Int, height: Int, width: Int) {
  def size: Int = channels * height * width
}

/** A layer in its place.
  *
  * @param inputs names of nodes or of the input.
  * @param inputShape of the first input.
  * @param variables shapes of its parameters, which lie one after the other in the flat vector.
  * @param offset of the first of them.
  * @param statisticsOffset of a batch normalisation's mean, which its variance follows.
  */
private[insitu] final case class Node(
    name: String,
    layer: Layer,
    inputs: Seq[String],
    inputShape: Shape,
    shape: Shape,
    variables: Seq[Array[Int]],
    offset: Int,
    statisticsOffset: Int
) {

  /** Its parameters, or their gradients, as views of the flat vector. */
  def views(flat: Tensor[Float]): Seq[Tensor[Float]] = {
    val offsets = variables.scanLeft(offset)(_ + _.product)
    variables.zip(offsets).map { case (shape, from) => flat.narrow(1, from + 1, shape.product).view(shape) }
  }

  def parameters: Int = variables.map(_.product).sum

  def statistics: Int = layer match {
    case _: BatchNormalization => 2 * shape.channels
    case _ => 0
  }
}

/** A network as `insitu.bigdl.convert` writes it.
  *
  * @param nodes in an order of computation.
  * @param parameters the length of the flat vector of parameters.
  * @param statistics the length of that of moving means and variances.
  */
private[insitu] final case class Topology(
    input: String,
    inputShape: Shape,
    output: String,
    nodes: Seq[Node],
    parameters: Int,
    statistics: Int
) {

  /** How many nodes take this one's output. */
  def consumers(name: String): Int = nodes.count(_.inputs.contains(name))
}

private[insitu] object Topology {
  private implicit val formats: Formats = DefaultFormats

  def parse(json: String): Topology = {
    val document = JsonMethods.parse(json)
    val input = document \ "input"
    val inputName = (input \ "name").extract[String]
    val inputShape = Shape(
      (input \ "channels").extract[Int],
      (input \ "height").extract[Int],
      (input \ "width").extract[Int]
    )
    val nodes = (document \ "nodes").children.foldLeft(Vector.empty[Node]) { (before, node) =>
      val inputs = (node \ "inputs").extract[Seq[String]]
      val from = before.find(_.name == inputs.head).map(_.shape).getOrElse(inputShape)
      val Seq(channels, height, width) = (node \ "shape").extract[Seq[Int]]
      val (layer, shape) = (readLayer(node), Shape(channels, height, width))
      before :+ Node(
        (node \ "name").extract[String],
        layer,
        inputs,
        from,
        shape,
        variables(layer, from, shape),
        before.lastOption.fold(0)(last => last.offset + last.parameters),
        before.lastOption.fold(0)(last => last.statisticsOffset + last.statistics)
      )
    }
    Topology(
      inputName,
      inputShape,
      (document \ "output").extract[String],
      nodes,
      nodes.map(_.parameters).sum,
      nodes.map(_.statistics).sum
    )
  }

  private def readLayer(node: JValue): Layer = {
    def pair(name: String): (Int, Int) = {
      val Seq(vertical, horizontal) = (node \ name).extract[Seq[Int]]
      (vertical, horizontal)
    }
    def stride: Int = (node \ "stride").extract[Int]
    def number(name: String): Double = (node \ name).extract[Double]
    (node \ "kind").extract[String] match {
      case "convolution" => Convolution(pair("kernel"), stride, pair("padding"), (node \ "bias").extract[Boolean])
      case "batch_normalization" => BatchNormalization(number("epsilon"), number("momentum"))
      case "relu" => Relu
      case "max_pooling" => MaxPooling(pair("kernel"), stride, pair("padding"))
      case "average_pooling" => AveragePooling(pair("kernel"), stride)
      case "concatenation" => Concatenation
      case "addition" => Addition
      case "linear" => Linear
      case "dropout" => Dropout(number("rate"))
      case kind => throw new IllegalArgumentException(s"expected a known kind of layer, got $kind")
    }
  }

  private def variables(layer: Layer, from: Shape, to: Shape): Seq[Array[Int]] = layer match {
    case Convolution((height, width), _, _, bias) =>
      Array(to.channels, from.channels, height, width) +: (if (bias) Seq(Array(to.channels)) else Seq.empty)
    case _: BatchNormalization => Seq(Array(to.channels), Array(to.channels))
    case Linear => Seq(Array(to.channels, from.size), Array(to.channels))
    case _ => Seq.empty
  }
}
