"""Our run and a plain SFTTrainer script, as TRL documents it, give the same loss at every step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer

from lorasweep import metrics, random_model
from lorasweep.data import divide, load
from lorasweep.schema import Run
from tests.conftest import tiny

STEPS = 4


def plain_losses(run: Run, folder: Path) -> list[float]:
    """The same job without us: messages in, TRL renders, tokenises, masks, packs and trains."""
    place = str(random_model.folder(run.model.shape))
    quantization = None
    if run.quant.method == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, quantization_config=quantization)
    adapter = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=run.lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    source = load(run.data, None, None).rows
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in source.select(divide(len(source), run.data, set())["train"])
    ]
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=run.train.batch_size,
        gradient_accumulation_steps=run.train.grad_accum,
        max_steps=STEPS,
        learning_rate=run.optim.lr,
        lr_scheduler_type="linear",
        warmup_steps=0.03,
        optim=run.optim.name,
        max_length=128,
        packing=run.data.packing,
        logging_steps=1,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    start = float32_start(place, adapter)
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(place),
        peft_config=adapter,
    )
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = start[name]
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def float32_start(place: str, adapter: LoraConfig) -> dict[str, torch.Tensor]:
    """The adapter that the trainer's seed draws, before TRL rounds it to bfloat16."""
    set_seed(42)
    fresh = get_peft_model(AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32), adapter)
    return {name: value.detach() for name, value in fresh.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("packing", [False, True])
def test_losses_equal_those_of_a_plain_script(
    quant: str, dropout: float, packing: bool, launched: Callable[..., Path], tmp_path: Path
) -> None:
    run = tiny(
        f"quant={quant}", f"lora.dropout={dropout}", f"data.packing={packing}", "data.max_length=128",
        f"train.max_steps={STEPS}", "train.batch_size=2", "train.grad_accum=2", "evaluation.times=2",
    )  # fmt: skip
    ours = [entry["train/loss"] for entry in metrics.read(launched(run)) if "train/loss" in entry]
    assert len(ours) == STEPS
    assert ours == plain_losses(run, tmp_path / "plain")
