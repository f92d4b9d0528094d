package insitu.recommend.als

import org.apache.spark.unsafe.Platform

/** Memory outside Java's heap, for compiled code; arrays in it are addresses. */
private[als] final class OffHeap {
  private var addresses = List.empty[Long]

  def allocate(bytes: Long): Long = {
    addresses ::= Platform.allocateMemory(bytes)
    addresses.head
  }

  def words(count: Long): Long = allocate(count * Packed.WordBytes)

  def copy(array: Array[Float]): Long = {
    val address = words(array.length)
    Platform.copyMemory(array, Platform.FLOAT_ARRAY_OFFSET, null, address, OffHeap.bytes(array.length))
    address
  }

  def copy(array: Array[Int]): Long = {
    val address = words(array.length)
    Platform.copyMemory(array, Platform.INT_ARRAY_OFFSET, null, address, OffHeap.bytes(array.length))
    address
  }

  def free(): Unit = addresses.foreach(Platform.freeMemory)
}

private[als] object OffHeap {

  /** What `action` gives; its memory is free afterwards. */
  def using[T](action: OffHeap => T): T = {
    val memory = new OffHeap
    try action(memory)
    finally memory.free()
  }

  def ints(address: Long, count: Int): Array[Int] = {
    val array = new Array[Int](count)
    Platform.copyMemory(null, address, array, Platform.INT_ARRAY_OFFSET, bytes(count))
    array
  }

  def floats(address: Long, count: Int): Array[Float] = {
    val array = new Array[Float](count)
    Platform.copyMemory(null, address, array, Platform.FLOAT_ARRAY_OFFSET, bytes(count))
    array
  }

  /** Copy some words of packed numbers to an address. */
  def put(packed: Array[Byte], start: Int, count: Int, address: Long): Unit =
    Platform.copyMemory(packed, Platform.BYTE_ARRAY_OFFSET + bytes(start), null, address, bytes(count))

  def packed(address: Long, count: Long): Array[Byte] = {
    val array = new Array[Byte](Packed.size(count * Packed.WordBytes))
    Platform.copyMemory(null, address, array, Platform.BYTE_ARRAY_OFFSET, array.length)
    array
  }

  private def bytes(words: Int): Long = words.toLong * Packed.WordBytes
}
