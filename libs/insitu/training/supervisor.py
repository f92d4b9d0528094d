"""Runs an engine's jobs, and starts a gang that died again from the newest checkpoint."""

from dataclasses import replace

from insitu.cluster.filesystem import say
from insitu.errors import UserError, WorkerLost
from insitu.training.engines.base import Engine, Event, Layout, Listener, TrainingJob, TrainingResult
from insitu.training.rundir import RunDirectory, persist_result


class Supervisor:
    """Supervises all jobs of a run.

    Args:
        engine, layout: what trains, and where.
        run: takes checkpoints and what gangs leave.
        listener: gets the engine's events, and `start` and `restart`.

    Attributes:
        restarts: one dict a restart: `step` and `reason`.
    """

    def __init__(self, engine: Engine, layout: Layout, run: RunDirectory, listener: Listener) -> None:
        self._engine = engine
        self._layout = layout
        self._run = run
        self._listener = listener
        self.restarts: list[dict[str, int | str]] = []
        self._written_step = 0

    def train(self, job: TrainingJob) -> TrainingResult:
        """Run a job to its end.

        Raises:
            WorkerLost: workers died more often than `training.max_restarts`.
            UserError: the output's file system is full, or stays away.
        """
        training = job.recipe.training
        while True:
            self._listener(
                {
                    "event": "start",
                    "epochs": training.epochs,
                    "steps_per_epoch": job.train.steps,
                    "global_batch": training.global_batch,
                    "first_step": job.first_step,
                }
            )
            try:
                scratch = self._run.scratch(kept=job.initial_weights)
                return self._engine.train(replace(job, scratch=scratch), self._layout, self._hear)
            except WorkerLost as lost:
                if len(self.restarts) == training.max_restarts:
                    used = f"training.max_restarts = {training.max_restarts} are used up"
                    raise WorkerLost(f"{lost}\n{used}: mend the cause, then --resume") from lost
                job = self.resumed(job)
                self._note(job, str(lost))

    def resumed(self, job: TrainingJob) -> TrainingJob:
        """The job from the newest valid checkpoint within it on, or from its beginning.

        Raises:
            UserError: the job needs a checkpoint, since it begins where epochs of an earlier driver ended.
        """
        step, first = self.newest_step(job) or 0, job.first_epoch * job.train.steps
        if step <= first and first and not job.history:
            problem = f"no checkpoint after step {first} can be read, and what was trained before it is not in memory"
            mend = "give the same command with --resume, which goes on from an earlier one or trains these epochs again"
            raise UserError("--output", problem, mend)
        return replace(job, resume_step=step if step > first else None)

    def newest_step(self, job: TrainingJob) -> int | None:
        """The step of the newest valid checkpoint.

        Raises:
            UserError: the output's file system is full, or stays away.
        """
        store = self._run.store(keep=job.recipe.training.checkpoint.keep)
        newest = persist_result(
            lambda: store.newest(say, at_least=self._written_step), "reading the checkpoints", self._run.uri
        )
        return newest.step if newest else None

    def _hear(self, event: Event) -> None:
        if event["event"] == "checkpoint" and event["error"] is None:
            self._written_step = event["step"]
        self._listener(event)

    def _note(self, job: TrainingJob, reason: str) -> None:
        self.restarts.append({"step": job.first_step, "reason": reason})
        count, most = len(self.restarts), job.recipe.training.max_restarts
        self._listener({"event": "restart", "attempt": count, "of": most, "reason": reason, "step": job.first_step})
