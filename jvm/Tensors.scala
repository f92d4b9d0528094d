package com.intel.analytics.bigdl.insitu

/** Stored tensors → floats: the values of `insitu.data.tensors`, rounded once and all finite. */
private[insitu] object Tensors {

  /** Reads a NumPy array of floats or integers, of the tensor's shape or flat.
    *
    * @return [height, width, channels] in row-major order.
    * @throws BadValue anything else.
    */
  def fromNumpy(payload: Array[Byte], source: Source): Array[Float] = {
    if (payload == null || !NumpyArray.isOne(payload)) throw new BadValue("not a NumPy array")
    val array = NumpyArray.parse(payload)
    if (!"iuf".contains(array.kind)) throw new BadValue(s"array of ${array.kind}${array.itemBytes}, expected numbers")
    val maps = Seq(source.height, source.width, source.channels)
    val shapes = Seq(maps, Seq(source.size)) ++ (if (source.channels == 1) Some(maps.init) else None)
    if (!shapes.contains(array.shape.toSeq))
      throw new BadValue(s"array of shape ${array.shape.mkString("(", ", ", ")")}, expected ${maps.mkString(" x ")}")
    finite(array.floats)
  }

  /** Reads a list of a DataFrame, flat or nested as the tensor is.
    *
    * @return [height, width, channels] in row-major order.
    * @throws BadValue a null, or another number of values.
    */
  def fromList(list: Seq[Any], source: Source): Array[Float] = {
    val values = new Array[Float](source.size)
    var filled = 0
    def fill(value: Any, lengths: Seq[Int]): Unit = value match {
      case null => throw new BadValue("a value in it is null")
      case inner: Seq[_] =>
        if (inner.length != lengths.head) throw new BadValue(s"list of ${inner.length}, expected ${lengths.head}")
        inner.foreach(fill(_, lengths.tail))
      case number: Number =>
        values(filled) = number.floatValue
        filled += 1
    }
    val nested = list.headOption.exists(_.isInstanceOf[Seq[_]])
    fill(list, if (nested) Seq(source.height, source.width, source.channels) else Seq(source.size))
    finite(values)
  }

  /** The same values.
    *
    * @throws BadValue one is NaN or infinite.
    */
  def finite(values: Array[Float]): Array[Float] = {
    var i = 0
    while (i < values.length) {
      if (values(i).isNaN || values(i).isInfinite) throw new BadValue(s"number $i is ${values(i)}")
      i += 1
    }
    values
  }

  /** An unsigned number as a float, rounded once. */
  def unsigned(bits: Long): Float =
    if (bits >= 0) bits.toFloat else ((bits >>> 1) | (bits & 1)).toFloat * 2
}
