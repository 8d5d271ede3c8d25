"""What a plain SFTTrainer does with a QLoRA run that is made twice, gone on with, or goes wrong.

On a CPU, in a minute or two; docs/beside-trl.md has the table.

python benchmarks/beside_trl.py
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from lorasweep import demo_rows, random_model
from lorasweep.library_logs import quiet_libraries
from lorasweep.schema import Shape

STEPS, SAVED = 6, 3
Adapter = dict[str, torch.Tensor]


class Losses(TrainerCallback):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keep the loss of a step."""
        if logs and "loss" in logs:
            self.logged.append(logs["loss"])


class Poisoned(SFTTrainer):
    """Has a loss that is no number at one step."""

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """Return the loss, at step 3 NaN."""
        loss = super().compute_loss(*arguments, **options)
        return loss * torch.nan if self.state.global_step == SAVED - 1 else loss


def trained(
    folder: Path, resume: bool = False, kind: type[SFTTrainer] = SFTTrainer, **options: Any
) -> tuple[Adapter, list[float]]:
    """Train as TRL's documentation shows it; return the adapter and the losses."""
    place, losses = str(random_model.folder(Shape())), Losses()
    set_seed(0)
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    base = AutoModelForCausalLM.from_pretrained(place, quantization_config=quantized, dtype=torch.float32)
    for module in base.modules():
        module.support_avx512bf16_for_cpu = False  # a kernel of bitsandbytes that loses gradients
    arguments = SFTConfig(
        output_dir=str(folder), max_steps=STEPS, save_steps=SAVED, logging_steps=1, per_device_train_batch_size=4,
        report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
        **{"learning_rate": 2e-3, "gradient_checkpointing": False, **options},
    )  # fmt: skip
    trainer = kind(
        model=base,
        args=arguments,
        train_dataset=Dataset.from_list(demo_rows.generate(24, 0)),
        processing_class=AutoTokenizer.from_pretrained(place),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[losses],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{SAVED}") if resume else None)
    trainer.save_model(str(folder / "end"))
    return load_file(folder / "end" / "adapter_model.safetensors"), losses.logged


def gone_on(whole: Path, change: Callable[[Path], None] = lambda checkpoint: None, **options: Any) -> Adapter:
    """Go on from a copy of a run's checkpoint, changed."""
    folder = Path(tempfile.mkdtemp(dir=whole.parent))
    shutil.copytree(whole / f"checkpoint-{SAVED}", folder / f"checkpoint-{SAVED}")
    change(folder / f"checkpoint-{SAVED}")
    return trained(folder, resume=True, **options)[0]


def difference(one: Adapter, other: Adapter) -> str:
    """Say how far two adapters are apart."""
    dtypes = {str(value.dtype).removeprefix("torch.") for value in one.values()}
    others = {str(value.dtype).removeprefix("torch.") for value in other.values()}
    apart = max(float((value.float() - other[name].float()).abs().max()) for name, value in one.items())
    return f"{apart:.3g}" + (f", {'/'.join(dtypes)} -> {'/'.join(others)}" if dtypes != others else "")


def main() -> None:
    logging.disable(logging.WARNING)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as place:
        whole, _ = trained(Path(place) / "whole")
        again, _ = trained(Path(place) / "again")
        poisoned, losses = trained(Path(place) / "poisoned", kind=Poisoned)
        folder = Path(place) / "whole"
        rows = {
            "made twice": difference(whole, again),
            "gone on with at half its steps": difference(whole, gone_on(folder)),
            "without optimizer.pt": difference(whole, gone_on(folder, lambda path: (path / "optimizer.pt").unlink())),
            "without rng_state.pth": difference(whole, gone_on(folder, lambda path: (path / "rng_state.pth").unlink())),
            "with ten times the learning rate": difference(whole, gone_on(folder, learning_rate=2e-2)),
        }
        broken = sum(not bool(value.isfinite().all()) for value in poisoned.values())
    print("| a plain SFTTrainer, QLoRA | largest difference of the adapter |\n|---|---|")
    for name, words in rows.items():
        print(f"| {name} | {words} |")
    shown = " ".join(f"{loss:.3f}" for loss in losses)
    print(f"| NaN at step {SAVED} | logged losses {shown}; {broken} of {len(poisoned)} tensors not finite; no error |")


if __name__ == "__main__":
    main()
