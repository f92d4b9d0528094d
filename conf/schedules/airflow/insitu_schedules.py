"""Score what is new every hour; once a week train on with the rows that people have labelled, quantise, and promote.

For Airflow 3, and 2.11 with apache-airflow-providers-standard. Set the paths and the addresses, and put the file into
the folder of DAGs. The tasks are shell commands, so the Airflow workers need no Spark provider and no connection to
Spark: they need the environment at /opt/insitu and the cluster's Hadoop configuration.

A failed task is tried again after ten minutes, since a file system or a cluster may be away; then it is mailed with its
exit code: 2 is a mistake in the command or the data, told in the log's last line, 1 a failure, and of the promotion
3 a model that is worse than the current one.
"""

from datetime import datetime, timedelta

from airflow import DAG
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.operators.bash import BashOperator

TASKS = {
    "cwd": "/opt/insitu",
    "env": {"HADOOP_CONF_DIR": "/etc/hadoop/conf"},
    "append_env": True,
    "retries": 2,
    "retry_delay": timedelta(minutes=10),
    "on_failure_callback": SmtpNotifier(
        from_email="airflow@example.org",
        to="cluster-team@example.org",
        subject="{{ ti.dag_id }}, {{ ti.task_id }} failed",
        html_content="{{ exception }}: {{ ti.log_url }}",
    ),
}

# A run scores all that is new, so hours that were missed need no run of their own.
with DAG(
    "insitu_score",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=TASKS,
):
    BashOperator(
        task_id="score",
        bash_command=(
            ". .venv/bin/activate && exec spark-submit --master yarn jobs/score_batch.py "
            "--model hdfs:///models/chexnet --data hdfs:///incoming/xrays --output hdfs:///scores/xrays"
        ),
        execution_timeout=timedelta(hours=3),
    )

# hdfs:///models/chexnet is a registry: the first model comes into it by `insitu promote`, by hand.
with DAG(
    "insitu_train_on",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=TASKS,
):
    train = BashOperator(
        task_id="train",
        bash_command=(
            ". .venv/bin/activate && exec spark-submit --master yarn jobs/train_cnn.py --resume "
            "--recipe conf/recipes/chexnet-densenet121.yaml --data hdfs:///datasets/xrays "
            "--output hdfs:///models/trained/{{ ds }} --set 'data.additions=[hdfs:///labelled/xrays]' "
            "--set model.init=hdfs:///models/chexnet --set model.keep_head=true "
            "--set training.epochs=3 --set training.optimizer.learning_rate=0.00005"
        ),
    )
    quantize = BashOperator(
        task_id="quantize",
        bash_command=(
            ". .venv/bin/activate && exec spark-submit --master yarn jobs/quantize.py "
            "--model hdfs:///models/trained/{{ ds }} --data hdfs:///datasets/xrays "
            "--output hdfs:///models/quantised/{{ ds }}"
        ),
    )
    promote = BashOperator(
        task_id="promote",
        bash_command=(
            ". .venv/bin/activate && exec insitu promote --candidate hdfs:///models/quantised/{{ ds }} "
            "--registry hdfs:///models/chexnet --holdout hdfs:///datasets/xrays --replay hdfs:///incoming/xrays"
        ),
    )
    train >> quantize >> promote
