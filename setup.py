"""Installs libs/insitu and the `insitu` command; what they need is locked in requirements/."""

from setuptools import find_packages, setup

setup(
    name="insitu",
    version="0.1.0",
    description="Deep learning on the Spark cluster that already stores the Parquet",
    license="Apache-2.0",
    python_requires="==3.11.*",
    package_dir={"": "libs"},
    packages=find_packages("libs"),
    package_data={"insitu.report": ["templates/*"]},
    entry_points={"console_scripts": ["insitu = insitu.cli:main"]},
)
