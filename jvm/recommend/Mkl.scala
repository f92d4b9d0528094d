package insitu.recommend.als

import java.nio.file.{Files, Paths}

import scala.collection.JavaConverters._

import dev.ludovic.netlib.blas.NativeBLAS
import dev.ludovic.netlib.lapack.NativeLAPACK

/** MKL through netlib's native interface, in this JVM; never Java's own BLAS in its place. */
object Mkl {
  private val Setting = "dev.ludovic.netlib.blas.nativeLibPath"
  private val Mend =
    s"give every JVM -D$Setting=PATH/libmkl_rt.so.3 and the same for lapack, as conf/spark-env.sh and spark-defaults.conf do"

  private lazy val loaded: (NativeBLAS, NativeLAPACK) = {
    val (blas, lapack) =
      try ((NativeBLAS.getInstance, NativeLAPACK.getInstance))
      catch {
        case error: RuntimeException =>
          throw new IllegalStateException(s"$path: no native BLAS (${error.getMessage}); $Mend", error)
      }
    if (kernels.isEmpty) throw new IllegalStateException(s"$path is no MKL; $Mend")
    (blas, lapack)
  }

  /** @throws IllegalStateException the library is not MKL or does not load; the message says what to set. */
  def blas: NativeBLAS = loaded._1

  /** @throws IllegalStateException as `blas`. */
  def lapack: NativeLAPACK = loaded._2

  /** The MKL libraries that this process has loaded, such as libmkl_avx512.so.3. */
  private def kernels: Seq[String] = {
    val maps = Files.readAllLines(Paths.get("/proc/self/maps")).asScala
    maps.map(line => line.substring(line.lastIndexOf('/') + 1)).filter(_.startsWith("libmkl_")).distinct.sorted
  }

  private def path: String = s"$Setting=${System.getProperty(Setting, "libblas.so.3, the default")}"

  /** Prints which of MKL's kernels and of ALS's were loaded, or why one was not; for `insitu doctor`. */
  def main(arguments: Array[String]): Unit =
    try {
      blas.sdot(1, Array(1f), 1, Array(1f), 1) // MKL loads its kernels at the first call
      println((kernels :+ Native.library).mkString(", "))
    } catch {
      case error: IllegalStateException => refuse(error)
      case error: ExceptionInInitializerError => refuse(error.getCause)
    }

  private def refuse(reason: Throwable): Unit = {
    System.err.println(reason.getMessage)
    sys.exit(1)
  }
}
