package com.intel.analytics.bigdl.insitu

import java.util.SplittableRandom

import org.json4s.{DefaultFormats, Formats}
import org.json4s.jackson.JsonMethods

/** How far training images are changed at random, as in `insitu.data.augment`; 0 leaves that property alone.
  *
  * Flip, rotation and crop are one projective transform, so that an image is resampled once.
  *
  * @param flip mirror half of the images left to right.
  * @param rotateDegrees rotate by up to this many degrees either way.
  * @param crop cut up to this share of each side away and resize the rest.
  * @param brightness add up to this share of the full range either way.
  * @param contrast scale the distance from the image's mean by up to this share either way.
  * @param color scale each channel by up to this share either way.
  */
final case class Augment(
    flip: Boolean,
    rotateDegrees: Double,
    crop: Double,
    brightness: Double,
    contrast: Double,
    color: Double
) {

  /** Changes one image; the same seed gives the same changes.
    *
    * @param pixels uint8 [height, width, channels].
    * @return the same shape; `pixels` itself where nothing is to be changed.
    */
  def apply(pixels: Array[Byte], height: Int, width: Int, channels: Int, seed: Long): Array[Byte] = {
    val random = new SplittableRandom(seed)
    def draw(): Double = 2 * random.nextDouble() - 1
    val (angle, zoom, across, down, mirror) = (draw(), draw(), draw(), draw(), draw())
    val (contrasted, brightened, colored) = (draw(), draw(), Array.fill(channels)(draw()))
    val moved =
      if (!flip && rotateDegrees == 0 && crop == 0) pixels
      else {
        val transform = Augment.transform(
          height,
          width,
          radians = angle * math.toRadians(rotateDegrees),
          scale = 1 - crop * (zoom + 1) / 2,
          across = across,
          down = down,
          mirrored = flip && mirror > 0
        )
        Augment.move(pixels, height, width, channels, transform)
      }
    if (brightness == 0 && contrast == 0 && color == 0) moved
    else
      Augment.shade(moved, 255 * brightness * brightened, 1 + contrast * contrasted, colored.map(1 + color * _))
  }
}

object Augment {
  private implicit val formats: Formats = DefaultFormats

  /** From JSON with all of the recipe's keys: flip, rotate_degrees, crop, brightness, contrast, color. */
  def parse(json: String): Augment = JsonMethods.parse(json).camelizeKeys.extract[Augment]

  /** The transform about an image's centre: output pixel (x, y) reads input pixel (a x + b y + c, d x + e y + f).
    *
    * @param scale share of each side that is kept.
    * @param across, down where the kept part lies, -1 (left, top) to 1.
    * @return (a, b, c, d, e, f).
    */
  def transform(
      height: Int,
      width: Int,
      radians: Double,
      scale: Double,
      across: Double,
      down: Double,
      mirrored: Boolean
  ): Array[Double] = {
    val sign = if (mirrored) -1 else 1
    val (cos, sin) = (math.cos(radians) * scale, math.sin(radians) * scale)
    val (centerX, centerY) = ((width - 1) / 2.0, (height - 1) / 2.0)
    val shiftX = centerX + across * (1 - scale) * width / 2 - sign * cos * centerX + sin * centerY
    val shiftY = centerY + down * (1 - scale) * height / 2 - sign * sin * centerX - cos * centerY
    Array(sign * cos, -sin, shiftX, sign * sin, cos, shiftY)
  }

  /** Resamples an image, uint8 [height, width, channels], bilinear; beyond the edges lies the nearest pixel. */
  def move(
      pixels: Array[Byte],
      height: Int,
      width: Int,
      channels: Int,
      transform: Array[Double]
  ): Array[Byte] = {
    val moved = new Array[Byte](pixels.length)
    for (y <- 0 until height) moveRow(pixels, height, width, channels, transform, y, moved)
    moved
  }

  private def moveRow(
      pixels: Array[Byte],
      height: Int,
      width: Int,
      channels: Int,
      transform: Array[Double],
      y: Int,
      moved: Array[Byte]
  ): Unit = {
    val startX = transform(1) * y + transform(2)
    val startY = transform(4) * y + transform(5)
    var target = y * width * channels
    var x = 0
    while (x < width) {
      val fromX = within(transform(0) * x + startX, width - 1)
      val fromY = within(transform(3) * x + startY, height - 1)
      val left = fromX.toInt
      val top = fromY.toInt
      val partX = (fromX - left).toFloat
      val partY = (fromY - top).toFloat
      val right = if (left + 1 < width) channels else 0
      val below = if (top + 1 < height) width * channels else 0
      var at = (top * width + left) * channels
      val end = target + channels
      while (target < end) {
        val upper = (1 - partX) * (pixels(at) & 0xff) + partX * (pixels(at + right) & 0xff)
        val lower = (1 - partX) * (pixels(at + below) & 0xff) + partX * (pixels(at + below + right) & 0xff)
        moved(target) = math.rint((1 - partY) * upper + partY * lower).toByte
        at += 1
        target += 1
      }
      x += 1
    }
  }

  private def within(value: Double, last: Int): Double = if (value < 0) 0 else if (value > last) last else value

  /** Changes an image's levels.
    *
    * @param pixels uint8 [height, width, color.length].
    * @param brightness grey levels to add.
    * @param contrast factor of the distance from the image's mean.
    * @param color a factor for each channel, the last to be applied.
    */
  def shade(pixels: Array[Byte], brightness: Double, contrast: Double, color: Array[Double]): Array[Byte] = {
    val mean = total(pixels).toDouble / pixels.length
    val levels = color.map { factor =>
      Array.tabulate(256) { value =>
        val level = ((value - mean) * contrast + mean + brightness) * factor
        math.max(0, math.min(255, math.rint(level))).toByte
      }
    }
    val shaded = new Array[Byte](pixels.length)
    for (channel <- levels.indices) look(pixels, channel, levels, shaded)
    shaded
  }

  private def total(pixels: Array[Byte]): Long = {
    var sum = 0L
    var i = 0
    while (i < pixels.length) { sum += pixels(i) & 0xff; i += 1 }
    sum
  }

  private def look(pixels: Array[Byte], channel: Int, levels: Array[Array[Byte]], shaded: Array[Byte]): Unit = {
    val own = levels(channel)
    var i = channel
    while (i < pixels.length) {
      shaded(i) = own(pixels(i) & 0xff)
      i += levels.length
    }
  }
}
