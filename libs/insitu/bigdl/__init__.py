"""BigDL's dllib on the JVM, without its Python package."""
