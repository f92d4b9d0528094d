"""The examples of conf/schedules: their very command lines run, and the schedulers themselves take them."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from insitu.errors import UserError
from insitu.registry import Registry, Standing
from maven import Jar
from scored_models import IMAGES

ROOT = Path(__file__).parent.parent
SCHEDULES = ROOT / "conf/schedules"
DAGS = SCHEDULES / "airflow/insitu_schedules.py"
AIRFLOW = ROOT / "build/airflow"
OOZIE = "{uri:oozie:workflow:1.0}"
SPARK_ACTION = "{uri:oozie:spark-action:1.0}"
OOZIE_CLIENT = Jar(
    "org.apache.oozie", "oozie-client", "5.2.1", "f2eb9192268141258e9d16e1c5057fd84813ab67385677371105e62577486609"
)


@pytest.fixture
def cluster(tmp_path: Path, small: str) -> Path:
    """A directory in the place of hdfs://, with the registry and the images that the examples name."""
    registry = Registry(f"file://{tmp_path}/models/chexnet", setting="--registry")
    registry.promote(Path(small), {}, compared_with=Standing())
    (tmp_path / "incoming/xrays").mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a", "b"], "image": IMAGES[:2]}), tmp_path / "incoming/xrays/1.parquet")
    return tmp_path


def job_of(command: list[str], cluster: Path) -> list[str]:
    """What follows spark-submit's own options."""
    start = next(place for place, word in enumerate(command) if word.startswith("jobs/"))
    return [word.replace("hdfs://", f"file://{cluster}") for word in command[start:]]


class TestCron:
    @pytest.fixture
    def home(self, cluster: Path) -> Path:
        """In the place of /opt/insitu."""
        (cluster / "home").mkdir()
        (cluster / "home/jobs").symlink_to(ROOT / "jobs")
        return cluster / "home"

    @staticmethod
    def run(number: int, cluster: Path, home: Path) -> subprocess.CompletedProcess[str]:
        """A command of the table, as cron runs it: the variables of the table, and next to nothing else."""
        text = (SCHEDULES / "crontab").read_text()
        for there, here in (
            ("/opt/insitu/.venv", sys.prefix),
            ("/opt/insitu", str(home)),
            ("hdfs://", f"file://{cluster}"),
            ("--master yarn", "--master local[2]"),
        ):
            text = text.replace(there, here)
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        variables = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
        commands = [line.split(None, 5)[5] for line in lines if not re.match(r"\w+=", line)]
        environment = {"HOME": str(cluster), "LOGNAME": "nobody", "PYTHONPATH": str(ROOT / "libs")} | variables
        command = [variables["SHELL"], "-c", commands[number].replace(r"\%", "%")]
        return subprocess.run(command, env=environment, cwd=cluster, capture_output=True, text=True, timeout=300)

    @pytest.mark.slow
    def test_a_run_that_scores_is_silent(self, cluster: Path, home: Path) -> None:
        done = self.run(0, cluster, home)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (log,) = (home / "logs").glob("score_*.log")
        assert '"rows": 2' in log.read_text()
        assert pq.read_table(cluster / "scores/xrays/scores").num_rows == 2

    def test_a_run_that_fails_is_mailed_with_its_exit_code(self, cluster: Path, home: Path) -> None:
        shutil.rmtree(cluster / "models/chexnet")
        first, *_, last = self.run(0, cluster, home).stdout.splitlines()
        assert first == "score_batch.py: exit code 2"
        assert last.startswith(f"score_batch: --model: file://{cluster}/models/chexnet is no model directory")

    def test_old_logs_are_removed(self, cluster: Path, home: Path) -> None:
        (home / "logs").mkdir()
        for name, days in (("score_2026-01-01.log", 40), ("score_2026-02-01.log", 9), ("insitu.log", 40)):
            (home / "logs" / name).touch()
            seconds = (home / "logs" / name).stat().st_mtime - days * 86400
            os.utime(home / "logs" / name, (seconds, seconds))
        self.run(1, cluster, home)
        assert sorted(path.name for path in (home / "logs").iterdir()) == ["insitu.log", "score_2026-02-01.log"]


def airflow_commands() -> dict[str, str]:
    """The tasks' commands as they stand in the file."""
    calls = [node for node in ast.walk(ast.parse(DAGS.read_text())) if isinstance(node, ast.Call)]
    given = [{keyword.arg: keyword.value for keyword in call.keywords} for call in calls]
    tasks = [keywords for keywords in given if "bash_command" in keywords]
    return {ast.literal_eval(task["task_id"]): ast.literal_eval(task["bash_command"]) for task in tasks}


class TestAirflow:
    @pytest.mark.parametrize(
        ("task", "told"),
        [
            ("train", r"--data: file://.*/datasets/xrays does not exist"),
            ("quantize", r"--model: file://.*/models/trained/2026-01-04 is no model directory"),
        ],
    )
    def test_weekly_commands_are_taken_by_their_jobs(
        self, spark: SparkSession, cluster: Path, run_here: Callable, task: str, told: str
    ) -> None:
        """Up to the data, which is not there: arguments, recipe and the model that is trained on are right."""
        command = shlex.split(airflow_commands()[task].replace("{{ ds }}", "2026-01-04"))
        with pytest.raises(UserError, match=told):
            run_here(*job_of(command, cluster))

    def test_promotion_is_taken_by_the_command_line(self, cluster: Path) -> None:
        """Up to the candidate, which is not there."""
        command = (
            airflow_commands()["promote"].replace("{{ ds }}", "2026-01-04").replace("hdfs://", f"file://{cluster}")
        )
        done = subprocess.run(shlex.split(command.partition("exec ")[2]), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        told = f"insitu: --candidate: file://{cluster}/models/quantised/2026-01-04 is no model directory"
        assert told in done.stderr

    def test_hourly_command_scores(self, spark: SparkSession, cluster: Path, run_here: Callable) -> None:
        assert run_here(*job_of(shlex.split(airflow_commands()["score"]), cluster))["rows"] == 2

    @pytest.mark.nightly
    def test_airflow_itself_takes_the_file(self, tmp_path: Path) -> None:
        """Airflow is installed once, in an environment of its own below build/."""
        environment = {"AIRFLOW_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        command = [str(_airflow_python()), "-c", READ_DAGS, str(DAGS)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["errors"] == {}
        after = {"score": [], "train": [], "quantize": ["train"], "promote": ["quantize"]}
        tasks = {
            name: {"command": command, "retries": 2, "after": after[name]}
            for name, command in airflow_commands().items()
        }
        assert found["dags"] == {
            "insitu_score": {"catchup": False, "max_active_runs": 1, "tasks": {"score": tasks.pop("score")}},
            "insitu_train_on": {"catchup": False, "max_active_runs": 1, "tasks": tasks},
        }


READ_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

def read_task(task):
    return {"command": task.bash_command, "retries": task.retries, "after": sorted(task.upstream_task_ids)}

def read_dag(dag):
    tasks = {task.task_id: read_task(task) for task in dag.tasks}
    return {"catchup": dag.catchup, "max_active_runs": dag.max_active_runs, "tasks": tasks}

bag = DagBag(sys.argv[1])
print(json.dumps({"errors": bag.import_errors, "dags": {name: read_dag(dag) for name, dag in bag.dags.items()}}))
"""


def _airflow_python() -> Path:
    """The Python of an environment with requirements/airflow.txt, which is made where there is none or another."""
    lock, complete = ROOT / "requirements/airflow.txt", AIRFLOW / "complete"
    if not complete.exists() or complete.read_text() != lock.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", AIRFLOW], check=True)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock)
        subprocess.run([AIRFLOW / "bin/python", *install], check=True)
        complete.write_text(lock.read_text())
    return AIRFLOW / "bin/python"


class TestOozie:
    @pytest.fixture(scope="class")
    @staticmethod
    def workflow() -> ElementTree.Element:
        return ElementTree.parse(SCHEDULES / "oozie/workflow.xml").getroot()

    @pytest.fixture(scope="class")
    @staticmethod
    def properties() -> dict[str, str]:
        lines = (SCHEDULES / "oozie/job.properties").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def test_the_spark_action_scores(
        self,
        spark: SparkSession,
        cluster: Path,
        run_here: Callable,
        workflow: ElementTree.Element,
        properties: dict[str, str],
    ) -> None:
        action = workflow.find(f"*/{SPARK_ACTION}spark")
        assert action is not None
        arguments = [each.text or "" for each in action.findall(f"{SPARK_ACTION}arg")]
        command = [f"jobs/{action.findtext(f'{SPARK_ACTION}jar')}", *arguments]
        values = properties | {"nameNode": "hdfs://"}
        for _ in range(2):  # a value may name another
            command = [re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], word) for word in command]
        assert run_here(*job_of(command, cluster))["rows"] == 2

    def test_every_property_and_every_node_that_is_named_is_there(
        self, workflow: ElementTree.Element, properties: dict[str, str]
    ) -> None:
        files = [SCHEDULES / "oozie" / name for name in ("workflow.xml", "coordinator.xml", "job.properties")]
        named = {name for file in files for name in re.findall(r"\$\{(\w+)\}", file.read_text())}
        assert named <= properties.keys()
        nodes = {node.get("name") for node in workflow}
        assert {node.get("to") for node in workflow.iter() if node.get("to")} <= nodes

    @pytest.mark.nightly
    @pytest.mark.parametrize("name", ["workflow", "coordinator"])
    def test_oozies_own_schemas_take_the_files(self, spark: SparkSession, tmp_path: Path, name: str) -> None:
        """The schemas come from Oozie's client."""
        zipfile.ZipFile(OOZIE_CLIENT.fetch(tmp_path)).extractall(tmp_path)
        assert spark.sparkContext._gateway is not None and spark.sparkContext._jvm is not None
        gateway = spark.sparkContext._gateway
        xml = spark.sparkContext._jvm.javax.xml
        schemas = ("oozie-workflow-1.0", "oozie-coordinator-0.5", "spark-action-1.0", "email-action-0.2")
        sources = gateway.new_array(xml.transform.Source, len(schemas))
        for place, schema in enumerate(schemas):
            sources[place] = xml.transform.stream.StreamSource(f"file://{tmp_path}/{schema}.xsd")
        factory = xml.validation.SchemaFactory.newInstance("http://www.w3.org/2001/XMLSchema")
        validator = factory.newSchema(sources).newValidator()
        validator.validate(xml.transform.stream.StreamSource(f"file://{SCHEDULES}/oozie/{name}.xml"))
