package com.intel.analytics.bigdl.insitu

import java.nio.file.{Files, Paths, StandardOpenOption}
import java.nio.{ByteBuffer, ByteOrder}

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.Path

/** Vectors as files of little-endian float32, on any file system that Hadoop knows. */
object Vectors {
  private val ChunkValues = 1 << 20

  /** Reads `count` values from value `from` on. */
  def read(uri: String, from: Int, count: Int, hadoop: Configuration): Array[Float] = {
    val path = new Path(uri)
    val values = new Array[Float](count)
    val input = path.getFileSystem(hadoop).open(path)
    try {
      input.seek(4L * from)
      val bytes = chunk(count)
      var done = 0
      while (done < count) {
        val size = math.min(bytes.length / 4, count - done)
        input.readFully(bytes, 0, 4 * size)
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values, done, size)
        done += size
      }
    } finally input.close()
    values
  }

  /** Reads a whole file. */
  def read(uri: String, hadoop: Configuration): Array[Float] = {
    val path = new Path(uri)
    read(uri, 0, (path.getFileSystem(hadoop).getFileStatus(path).getLen / 4).toInt, hadoop)
  }

  /** Writes a file anew. */
  def write(values: Array[Float], from: Int, count: Int, uri: String, hadoop: Configuration): Unit = {
    val path = new Path(uri)
    val output = path.getFileSystem(hadoop).create(path, true)
    try {
      val bytes = chunk(count)
      var done = 0
      while (done < count) {
        val size = math.min(bytes.length / 4, count - done)
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values, from + done, size)
        output.write(bytes, 0, 4 * size)
        done += size
      }
    } finally output.close()
  }

  /** Adds to the end of a file of this machine, which is made if there is none. */
  def append(values: Array[Float], path: String): Unit = {
    val bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN)
    bytes.asFloatBuffer().put(values)
    Files.write(Paths.get(path), bytes.array(), StandardOpenOption.CREATE, StandardOpenOption.APPEND)
  }

  def write(values: Array[Float], uri: String, hadoop: Configuration): Unit =
    write(values, 0, values.length, uri, hadoop)

  private def chunk(count: Int): Array[Byte] = new Array[Byte](4 * math.min(ChunkValues, count))
}
