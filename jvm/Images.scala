package com.intel.analytics.bigdl.insitu

import java.awt.color.ColorSpace
import java.awt.image.{BufferedImage, DataBuffer, DataBufferByte, IndexColorModel, PixelInterleavedSampleModel, Raster}
import java.io.{ByteArrayInputStream, IOException}
import java.nio.charset.StandardCharsets.ISO_8859_1
import java.nio.{ByteBuffer, ByteOrder}
import java.util.zip.ZipInputStream
import javax.imageio.stream.MemoryCacheImageInputStream
import javax.imageio.{ImageIO, ImageReader}

import org.w3c.dom.Element

/** An image or a label that cannot be read; the message says why. */
final class BadValue(message: String) extends IllegalArgumentException(message)

/** Decoded samples of one image, uint8 [height, width, channels], grey (1) or RGB (3). */
private[insitu] final case class Pixels(height: Int, width: Int, channels: Int, samples: Array[Byte])

/** One stored image → pixels: those of `insitu.data.decode`, made by Java's own decoders. */
object Images {

  /** Decodes one image and brings it to the model's size.
    *
    * @param payload JPEG, PNG, TIFF, BMP or GIF bytes, or a NumPy array as `.npy` or `.npz`, uint8 or uint16, [H, W]
    *   or [H, W, C]. 16-bit samples are scaled to 8 bits by their high byte.
    * @param height, width to resize to, bilinear with antialiasing.
    * @param channels 1 (luminance) or 3 (RGB).
    * @return uint8 [height, width, channels].
    * @throws BadValue no bytes, damaged, or not an image.
    */
  def decode(payload: Array[Byte], height: Int, width: Int, channels: Int): Array[Byte] = {
    if (payload == null || payload.isEmpty) throw new BadValue("no bytes")
    val stored = if (NumpyArray.isOne(payload)) fromNumpy(NumpyArray.parse(payload)) else ImageFile.read(payload)
    Resize(inChannels(stored, channels), height, width).samples
  }

  private def fromNumpy(array: NumpyArray): Pixels = {
    val (height, width, channels) = array.shape match {
      case Array(h, w)                       => (h, w, 1)
      case Array(h, w, c) if Set(1, 3, 4)(c) => (h, w, c)
      case other =>
        throw new BadValue(s"array of shape ${other.mkString("(", ", ", ")")}, expected [H, W] or [H, W, C]")
    }
    if (array.kind != 'u' || array.itemBytes > 2)
      throw new BadValue(s"array of ${array.kind}${array.itemBytes}, expected uint8 or uint16")
    val kept = math.min(channels, 3)
    val samples = new Array[Byte](height * width * kept)
    val highByte = if (array.itemBytes == 2 && array.data.order == ByteOrder.LITTLE_ENDIAN) 1 else 0
    for (y <- 0 until height; x <- 0 until width; c <- 0 until kept) {
      val place = if (array.fortran) y + height * (x + width * c) else (y * width + x) * channels + c
      samples((y * width + x) * kept + c) = array.data.get(place * array.itemBytes + highByte)
    }
    Pixels(height, width, kept, samples)
  }

  private def inChannels(pixels: Pixels, channels: Int): Pixels = {
    val from = pixels.samples
    val samples = new Array[Byte](pixels.height * pixels.width * channels)
    var i = 0
    if (pixels.channels == channels) return pixels
    else if (channels == 3) while (i < samples.length) { samples(i) = from(i / 3); i += 1 }
    else
      while (i < samples.length) { // Pillow's luminance
        val (red, green, blue) = (from(3 * i) & 0xff, from(3 * i + 1) & 0xff, from(3 * i + 2) & 0xff)
        samples(i) = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).toByte
        i += 1
      }
    Pixels(pixels.height, pixels.width, channels, samples)
  }
}

/** Image files, by javax.imageio; rasters are read as they are stored, no colour profile is applied. */
private[insitu] object ImageFile {
  private val MaxPixels = 178956970L // Pillow's limit
  private val JfifSegment = Array(0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0).map(_.toByte)

  def read(payload: Array[Byte]): Pixels = {
    val kind = format(payload)
    val reader = ImageIO.getImageReadersByFormatName(kind).next()
    val bytes = if (kind == "jpeg") withColorsNamed(payload) else payload
    val stream = new MemoryCacheImageInputStream(new ByteArrayInputStream(bytes))
    try {
      var truncated = false
      reader.addIIOReadWarningListener((_: ImageReader, warning: String) => truncated |= warning.contains("EOI"))
      reader.setInput(stream, true, kind != "tiff")
      val (height, width) = (reader.getHeight(0), reader.getWidth(0))
      if (height.toLong * width > MaxPixels) throw new BadValue(s"damaged image: $height x $width pixels")
      if (kind == "gif") checkFrame(payload, height, width)
      if (kind == "tiff") checkColors(reader)
      val image = reader.read(0)
      if (truncated) throw new BadValue("damaged image: truncated")
      pixels(image)
    } catch {
      case error: BadValue         => throw error
      case error: IOException      => throw new BadValue(s"damaged image: ${error.getMessage}")
      case error: RuntimeException => throw new BadValue(s"damaged image: $error") // imageio's readers on hostile bytes
    } finally {
      reader.dispose()
      stream.close()
    }
  }

  private def format(payload: Array[Byte]): String = {
    val start = new String(payload.take(12), ISO_8859_1)
    if (start.startsWith("\u00ff\u00d8\u00ff")) "jpeg"
    else if (start.startsWith("\u0089PNG")) "png"
    else if (start.startsWith("II*\u0000") || start.startsWith("MM\u0000*")) "tiff"
    else if (start.startsWith("BM")) "bmp"
    else if (start.startsWith("GIF8")) "gif"
    else if (start.startsWith("RIFF") && start.endsWith("WEBP"))
      throw new BadValue("WebP, which Java cannot decode: store it as JPEG or PNG")
    else throw new BadValue(s"not an image: ${payload.length} bytes starting with ${payload.take(8).mkString(" ")}")
  }

  /** Marks a colour JPEG that does not say what its components are as YCbCr, as Pillow takes it; imageio guesses. */
  private def withColorsNamed(payload: Array[Byte]): Array[Byte] = {
    def byte(at: Int): Int = if (at < payload.length) payload(at) & 0xff else 0
    var at = 2
    while (byte(at) == 0xff && byte(at + 1) >= 0xc0) {
      val marker = byte(at + 1)
      val named = Set("JFIF\u0000", "Exif\u0000", "Adobe")(new String(payload.slice(at + 4, at + 9), ISO_8859_1))
      if (marker >= 0xe0 && marker <= 0xef && named) return payload
      if (marker <= 0xcf && !Set(0xc4, 0xc8, 0xcc)(marker)) { // the frame
        val components = (0 until byte(at + 9)).map(i => byte(at + 10 + 3 * i))
        if (components.length != 3 || components == "RGB".map(_.toInt)) return payload
        return payload.take(2) ++ JfifSegment ++ payload.drop(2)
      }
      at += 2 + (byte(at + 2) << 8 | byte(at + 3))
    }
    payload
  }

  private def checkFrame(payload: Array[Byte], height: Int, width: Int): Unit = {
    val screen = ByteBuffer.wrap(payload).order(ByteOrder.LITTLE_ENDIAN)
    if (screen.getChar(6) != width || screen.getChar(8) != height)
      throw new BadValue("GIF whose first frame does not fill it: store it as PNG")
  }

  private def checkColors(reader: ImageReader): Unit = {
    val tree = reader.getImageMetadata(0).getAsTree("javax_imageio_1.0").asInstanceOf[Element]
    val space = tree.getElementsByTagName("ColorSpaceType").item(0)
    if (space != null && space.asInstanceOf[Element].getAttribute("name") == "Lab") // Java's RGB of it is wrong
      throw new BadValue("TIFF in CIE L*a*b*, which Java cannot decode: store it as RGB")
  }

  private def pixels(image: BufferedImage): Pixels = {
    if (image.isAlphaPremultiplied) image.coerceData(false)
    val raster = image.getRaster
    val (height, width, bands) = (raster.getHeight, raster.getWidth, raster.getNumBands)
    image.getColorModel match {
      case palette: IndexColorModel => Pixels(height, width, 3, fromPalette(raster, palette))
      case model if model.getColorSpace.getType == ColorSpace.TYPE_CMYK =>
        Pixels(height, width, 3, fromCmyk(eightBit(raster, 4)))
      case _ =>
        val kept = if (bands < 3) 1 else 3
        Pixels(height, width, kept, interleaved(raster, kept).getOrElse(eightBit(raster, kept)))
    }
  }

  private def fromPalette(raster: Raster, palette: IndexColorModel): Array[Byte] = {
    val indices = raster.getPixels(0, 0, raster.getWidth, raster.getHeight, null: Array[Int])
    val samples = new Array[Byte](3 * indices.length)
    var i = 0
    while (i < indices.length) {
      val color = palette.getRGB(indices(i))
      samples(3 * i) = (color >> 16).toByte
      samples(3 * i + 1) = (color >> 8).toByte
      samples(3 * i + 2) = color.toByte
      i += 1
    }
    samples
  }

  /** The first `kept` bands of a raster of interleaved bytes, as most files have it. */
  private def interleaved(raster: Raster, kept: Int): Option[Array[Byte]] =
    (raster.getSampleModel, raster.getDataBuffer) match {
      case (model: PixelInterleavedSampleModel, data: DataBufferByte) if data.getOffset == 0 =>
        val from = data.getData
        val samples = new Array[Byte](raster.getHeight * raster.getWidth * kept)
        for (band <- 0 until kept; y <- 0 until raster.getHeight) {
          var source = y * model.getScanlineStride + model.getBandOffsets()(band)
          var target = y * raster.getWidth * kept + band
          val end = target + raster.getWidth * kept
          while (target < end) {
            samples(target) = from(source)
            source += model.getPixelStride
            target += kept
          }
        }
        Some(samples)
      case _ => None
    }

  private def eightBit(raster: Raster, kept: Int): Array[Byte] = {
    val kind = raster.getDataBuffer.getDataType
    if (kind == DataBuffer.TYPE_FLOAT || kind == DataBuffer.TYPE_DOUBLE)
      throw new BadValue("floating-point samples, expected 8-bit or 16-bit")
    val bands = raster.getNumBands
    val values = raster.getPixels(0, 0, raster.getWidth, raster.getHeight, null: Array[Int])
    if (kind == DataBuffer.TYPE_INT && raster.getSampleModel.getSampleSize(0) == 32)
      for (value <- values if value < 0 || value > 65535)
        throw new BadValue(s"samples from ${values.min} to ${values.max}, expected 16-bit")
    val samples = new Array[Byte](values.length / bands * kept)
    for (band <- 0 until kept) {
      val bits = raster.getSampleModel.getSampleSize(band)
      var (from, to) = (band, band)
      while (from < values.length) {
        samples(to) = (if (bits > 8) values(from) >> 8 else values(from) * 255 / ((1 << bits) - 1)).toByte
        from += bands
        to += kept
      }
    }
    samples
  }

  /** Pillow's RGB of CMYK samples. */
  private def fromCmyk(samples: Array[Byte]): Array[Byte] = {
    val colors = new Array[Byte](samples.length / 4 * 3)
    for (i <- colors.indices) {
      val white = 255 - (samples(i / 3 * 4 + 3) & 0xff)
      val product = (samples(i / 3 * 4 + i % 3) & 0xff) * white + 128
      colors(i) = (white - (((product >> 8) + product) >> 8)).toByte
    }
    colors
  }
}

/** An array as NumPy stores it.
  *
  * @param kind NumPy's: b, i, u or f.
  * @param fortran whether the first index runs fastest.
  * @param data in its byte order, from position 0.
  */
private[insitu] final case class NumpyArray(
    kind: Char,
    itemBytes: Int,
    shape: Array[Int],
    fortran: Boolean,
    data: ByteBuffer
) {

  /** The numbers in row-major order, rounded once. */
  def floats: Array[Float] = {
    val values = new Array[Float](shape.product)
    for (i <- values.indices) values(i) = float(if (fortran) place(i) else i)
    values
  }

  /** Where number `i` of the row-major order is stored if the first index runs fastest. */
  private def place(i: Int): Int = {
    var (left, stride, at) = (i, shape.product, 0)
    for (axis <- shape.indices.reverse) {
      stride /= shape(axis)
      at += left % shape(axis) * stride
      left /= shape(axis)
    }
    at
  }

  private def float(i: Int): Float = (kind, itemBytes) match {
    case ('b', 1) | ('i', 1) => data.get(i).toFloat
    case ('u', 1)            => (data.get(i) & 0xff).toFloat
    case ('i', 2)            => data.getShort(2 * i).toFloat
    case ('u', 2)            => data.getChar(2 * i).toFloat
    case ('i', 4)            => data.getInt(4 * i).toFloat
    case ('u', 4)            => (data.getInt(4 * i) & 0xffffffffL).toFloat
    case ('i', 8)            => data.getLong(8 * i).toFloat
    case ('u', 8)            => Tensors.unsigned(data.getLong(8 * i))
    case ('f', 2)            => half(data.getShort(2 * i))
    case ('f', 4)            => data.getFloat(4 * i)
    case ('f', 8)            => data.getDouble(8 * i).toFloat
    case _                   => throw new BadValue(s"array of $kind$itemBytes, expected numbers")
  }

  private def half(bits: Short): Float = {
    val (exponent, fraction) = ((bits >> 10) & 31, bits & 1023)
    val size =
      if (exponent == 31) Double.NaN
      else if (exponent == 0) fraction * math.pow(2, -24)
      else (1024 + fraction) * math.pow(2, exponent - 25)
    (if (bits < 0) -size else size).toFloat
  }
}

private[insitu] object NumpyArray {
  private val Descr = """'descr':\s*'([<>|=])([a-z])(\d+)'""".r.unanchored
  private val Shape = """'shape':\s*\(([\d,\s]*)\)""".r.unanchored

  def isOne(payload: Array[Byte]): Boolean = isNpy(payload) || isZip(payload)

  /** The array in `.npy` bytes, or the first one in `.npz` bytes.
    *
    * @throws BadValue damaged, or of Python objects.
    */
  def parse(payload: Array[Byte]): NumpyArray =
    try {
      val bytes = if (isZip(payload)) firstEntry(payload) else payload
      if (!isNpy(bytes)) throw new BadValue("NumPy file without an array")
      val file = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
      val (headerBytes, start) = if (bytes(6) == 1) (file.getChar(8).toInt, 10) else (file.getInt(8), 12)
      val header = new String(bytes, start, headerBytes, ISO_8859_1)
      (header, header) match {
        case (Descr(order, kind, itemBytes), Shape(sides)) =>
          val shape = sides.split(",").map(_.trim).filter(_.nonEmpty).map(_.toInt)
          file.position(start + headerBytes)
          val data = file.slice().order(if (order == ">") ByteOrder.BIG_ENDIAN else ByteOrder.LITTLE_ENDIAN)
          val size = shape.map(_.toLong).product * itemBytes.toInt
          if (size > data.remaining) throw new BadValue(s"damaged NumPy array: ${data.remaining} of $size bytes")
          if (size == 0) throw new BadValue("NumPy file without an array")
          NumpyArray(kind.head, itemBytes.toInt, shape, header.contains("'fortran_order': True"), data)
        case _ => throw new BadValue(s"damaged NumPy array: header $header")
      }
    } catch {
      case error: BadValue                                => throw error
      case error @ (_: IOException | _: RuntimeException) => throw new BadValue(s"damaged NumPy array: $error")
    }

  private def isNpy(payload: Array[Byte]): Boolean = startsWith(payload, "\u0093NUMPY")
  private def isZip(payload: Array[Byte]): Boolean = startsWith(payload, "PK\u0003\u0004")

  private def startsWith(payload: Array[Byte], magic: String): Boolean =
    payload.startsWith(magic.getBytes(ISO_8859_1))

  private def firstEntry(payload: Array[Byte]): Array[Byte] = {
    val archive = new ZipInputStream(new ByteArrayInputStream(payload))
    archive.getNextEntry
    archive.readAllBytes()
  }
}

/** Pillow's bilinear resize with antialiasing: a triangle filter as wide as the reduction, 22-bit fixed point, in one
  * direction and then the other, rounded to whole grey levels between the two.
  */
private[insitu] object Resize {
  private val Bits = 22
  private val Half = 1 << (Bits - 1)

  def apply(pixels: Pixels, height: Int, width: Int): Pixels =
    if (pixels.height == height && pixels.width == width) pixels
    else {
      val Pixels(fromHeight, fromWidth, channels, stored) = pixels
      val downFirst = fromHeight > height && fromHeight - height > 2 * (fromWidth - width) // Pillow's rule
      val resized =
        if (downFirst) across(down(stored, fromHeight, height), fromWidth, width, channels)
        else down(across(stored, fromWidth, width, channels), fromHeight, height)
      Pixels(height, width, channels, resized)
    }

  /** For each target position, the first source position and the weights from there on; weights add up to 1 << Bits. */
  private final class Taps(from: Int, to: Int) {
    private val scale = from.toDouble / to
    private val support = math.max(scale, 1.0)
    val first: Array[Int] = Array.tabulate(to)(at => math.max(0, ((at + 0.5) * scale - support + 0.5).toInt))
    val weights: Array[Array[Int]] = Array.tabulate(to) { at =>
      val center = (at + 0.5) * scale
      val last = math.min(from, (center + support + 0.5).toInt)
      val raw = Array.tabulate(last - first(at)) { i =>
        math.max(0.0, 1 - math.abs((i + first(at) - center + 0.5) / support))
      }
      val sum = raw.sum
      raw.map(weight => (0.5 + weight / sum * (1 << Bits)).toInt)
    }
  }

  /** [rows, width * C] from [rows, stored * C]. */
  private def across(from: Array[Byte], stored: Int, width: Int, channels: Int): Array[Byte] = {
    if (stored == width) return from
    val taps = new Taps(stored, width)
    val rows = from.length / (stored * channels)
    val to = new Array[Byte](rows * width * channels)
    for (y <- 0 until rows) acrossRow(from, y * stored * channels, taps, channels, to, y * width * channels)
    to
  }

  private def acrossRow(from: Array[Byte], start: Int, taps: Taps, channels: Int, to: Array[Byte], first: Int): Unit = {
    var x = 0
    while (x < taps.first.length) {
      val source = start + taps.first(x) * channels
      val target = first + x * channels
      if (channels == 3) color(from, source, taps.weights(x), to, target)
      else to(target) = gray(from, source, taps.weights(x))
      x += 1
    }
  }

  private def gray(from: Array[Byte], start: Int, weights: Array[Int]): Byte = {
    var sum = Half
    var i = 0
    while (i < weights.length) {
      sum += weights(i) * (from(start + i) & 0xff)
      i += 1
    }
    (sum >> Bits).toByte
  }

  private def color(from: Array[Byte], start: Int, weights: Array[Int], to: Array[Byte], target: Int): Unit = {
    var red, green, blue = Half
    var at = start
    var i = 0
    while (i < weights.length) {
      val weight = weights(i)
      red += weight * (from(at) & 0xff)
      green += weight * (from(at + 1) & 0xff)
      blue += weight * (from(at + 2) & 0xff)
      at += 3
      i += 1
    }
    to(target) = (red >> Bits).toByte
    to(target + 1) = (green >> Bits).toByte
    to(target + 2) = (blue >> Bits).toByte
  }

  /** [height, row] from [stored, row]. */
  private def down(from: Array[Byte], stored: Int, height: Int): Array[Byte] = {
    if (stored == height) return from
    val taps = new Taps(stored, height)
    val row = from.length / stored
    val to = new Array[Byte](height * row)
    val sums = new Array[Int](row)
    for (y <- 0 until height) {
      val weights = taps.weights(y)
      java.util.Arrays.fill(sums, Half)
      for (i <- weights.indices) add(from, (taps.first(y) + i) * row, weights(i), sums)
      store(sums, to, y * row)
    }
    to
  }

  private def add(from: Array[Byte], start: Int, weight: Int, sums: Array[Int]): Unit = {
    var x = 0
    while (x < sums.length) {
      sums(x) += weight * (from(start + x) & 0xff)
      x += 1
    }
  }

  private def store(sums: Array[Int], to: Array[Byte], start: Int): Unit = {
    var x = 0
    while (x < sums.length) {
      to(start + x) = (sums(x) >> Bits).toByte
      x += 1
    }
  }
}
