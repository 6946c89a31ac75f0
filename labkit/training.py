"""What every TRL trainer here is told, in one place: no surprises on a CPU, no telemetry, no checkpoints, one log."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, TrainerCallback

from labkit.errors import LabError
from labkit.job import Job


class Log(TrainerCallback):
    """Writes the trainer's logged numbers to the run's metrics.jsonl, under the lab's names, and ends it when a person says."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.job.policy, self.job.tokenizer = kwargs["model"], kwargs["processing_class"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.job.stops(state.global_step, state.max_steps):
            control.should_training_stop = control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        kept = {k: v for k, v in (logs or {}).items() if isinstance(v, int | float) and k in METRICS}
        if "loss" in kept:
            self.job.log(state.global_step, state.max_steps, **{METRICS[k]: v for k, v in kept.items()})


# The trainer's name → the lab's name.
METRICS = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "mean_token_accuracy": "train/token_accuracy",
    "dpo_loss": "train/dpo_loss",
    "rewards/accuracies": "train/accuracy",
    "rewards/margins": "train/margin",
    "rewards/chosen": "train/reward_chosen",
    "rewards/rejected": "train/reward_rejected",
    "logps/chosen": "train/logps_chosen",
    "logps/rejected": "train/logps_rejected",
    "kl": "train/kl",
}


def arguments(job: Job, *, rows: int, **more: Any) -> dict[str, Any]:
    """The arguments shared by all TRL configs; `rows` is the size of the training set, `more` goes on top."""
    s = job.settings
    if s.accumulate > s.batch:
        raise LabError(f"{job.stage}.accumulate ({s.accumulate}) splits a batch of {s.batch} into nothing: lower it.")
    on_gpu = job.device == "cuda"
    steps = max(1, -(-rows // s.batch) * s.epochs)
    return {
        "output_dir": str(job.folder / "trainer"),
        "learning_rate": s.learning_rate,
        "per_device_train_batch_size": s.batch // s.accumulate,
        "gradient_accumulation_steps": s.accumulate,
        "num_train_epochs": s.epochs,
        "lr_scheduler_type": "cosine",
        "warmup_steps": int(0.05 * steps),
        "weight_decay": 0.0,
        "max_length": job.recipe["model"].context,
        "seed": job.seed,
        "bf16": on_gpu,
        "use_cpu": job.device == "cpu",
        "activation_checkpointing": False,
        "activation_offloading": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": max(1, steps // 100),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "dataset_num_proc": None,
        **more,
    }


def held(steps: int) -> dict[str, Any]:
    """How RL's rate goes (transformers' warmup_stable_decay): up in a twentieth of the steps, level, down in the last four tenths."""
    return {"num_warmup_steps": steps // 20, "num_decay_steps": round(0.4 * steps), "decay_type": "linear"}


def train(trainer: Any) -> None:
    """Train, with the lab's log as the only voice."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def released(trainer: Any) -> Any:
    """The trained model without the `forward` that the trainer patched on it, and without its working folder."""
    import shutil

    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    trainer.model.__dict__.pop("forward", None)
    trainer.remove_callback(Log)
    return trainer.model.eval()
