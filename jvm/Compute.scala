package com.intel.analytics.bigdl.insitu

import java.nio.file.{Files, Paths}

import com.intel.analytics.bigdl.dllib.utils.{Engine, MklBlas, MklDnn}

import scala.collection.JavaConverters._

/** BigDL's engine in this JVM. */
object Compute {
  private val Allowed = "Cpus_allowed_list:\\s*(.*)".r

  /** Sets it up, anew where it was another.
    *
    * @param engine mklblas or mkldnn.
    * @param threads that compute: under mklblas each on its own, under mkldnn together.
    */
  def begin(engine: String, threads: Int): Unit = {
    System.setProperty("bigdl.engineType", engine)
    System.setProperty("bigdl.mklNumThreads", (if (engine == "mkldnn") threads else 1).toString)
    // It binds to the first cores of the host, the same ones in every executor there.
    System.setProperty("bigdl.disableOmpAffinity", "true")
    Engine.setEngineType(if (engine == "mkldnn") MklDnn else MklBlas)
    Engine.setNodeAndCore(1, threads)
  }

  /** The cores that this process may run on, as Linux writes them: 0-3,8. */
  def cores: String =
    Files.readAllLines(Paths.get("/proc/self/status")).asScala.collectFirst { case Allowed(cores) => cores }.get
}
