"""The files that a run is made from, by their content: weights, tokenizer, chat template, data. Without torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorasweep import cache, embedded_model, hub, random_model
from lorasweep.file_hashes import file_hash
from lorasweep.local_files import local_files, patterns
from lorasweep.schema import Data, Model

OF_TOKENIZER = re.compile(r"token|vocab|merges|spiece|tekken|chat_template|\.model$|\.tiktoken$")
"""Files of a model folder that say how text becomes tokens."""
TEMPLATE_FILE = "chat_template.jinja"
UNTOLD = (".git", ".cache")


def location(model: Model) -> str:
    """Return the folder or hub id to load from; makes the folder of an embedded or random model if need be."""
    if model.source == "embedded":
        return str(embedded_model.folder())
    if model.source == "random":
        return str(random_model.folder(model.shape))
    return model.name


def is_made(model: Model) -> bool:
    """Tell whether a model that is made on this machine is there; making one takes torch, and time."""
    if model.source not in ("embedded", "random"):
        return True
    name = embedded_model.name() if model.source == "embedded" else random_model.name(model.shape)
    return (cache.root() / name).is_dir()


def model_facts(model: Model) -> dict[str, Any]:
    """Return what identifies weights and architecture: where they are, the commit on the hub, every file's hash."""
    place = location(model)
    facts: dict[str, Any] = {"location": place, "commit": hub.commit(place, "model", model.revision)}
    return facts | {"sha256": _hashes(place, model.revision)}


def tokenizer_facts(model: Model) -> dict[str, Any]:
    """Return what identifies a tokenizer: its files, and the chat template that rows are rendered with."""
    place, revision = (model.tokenizer, None) if model.tokenizer else (location(model), model.revision)
    hashes = {name: value for name, value in _hashes(place, revision).items() if OF_TOKENIZER.search(name)}
    template = chat_template(model)
    return {
        "location": place,
        "sha256": hashes,
        "chat_template": template and hashlib.sha256(template.encode()).hexdigest(),
    }


def chat_template(model: Model) -> str | None:
    """Return the template that a run's tokenizer has: the option's, else that of its files; None without one."""
    if model.chat_template:
        from_file = model.chat_template.endswith((".jinja", ".j2"))
        return Path(model.chat_template).read_text(encoding="utf-8") if from_file else model.chat_template
    place, revision = (model.tokenizer, None) if model.tokenizer else (location(model), model.revision)
    files = dict(_files(place, revision))
    if TEMPLATE_FILE in files:
        return files[TEMPLATE_FILE].read_text(encoding="utf-8")
    if "tokenizer_config.json" not in files:
        return None
    given = json.loads(files["tokenizer_config.json"].read_text(encoding="utf-8")).get("chat_template")
    if isinstance(given, list):  # several, by name
        given = {item["name"]: item["template"] for item in given}
    return template_text(given)


def template_text(given: str | Mapping[str, str] | None) -> str | None:
    """Return a tokenizer's chat template as one text, of several all of them."""
    return json.dumps(given, sort_keys=True) if isinstance(given, Mapping) else given


def data_files(data: Data) -> dict[str, str]:
    """Return the hash of every local file that rows come from, by its path."""
    named = [pattern for given in (data.files, data.eval_files, data.test_files) for pattern in patterns(given)]
    paths = [path for pattern in named for path in local_files(pattern)]
    if data.path and Path(data.path).is_dir():
        paths += [str(path) for _, path in _files(data.path, None)]
    return {path: file_hash(path) for path in paths}


def _hashes(place: str, revision: str | None) -> dict[str, str]:
    return {name: hub.blob_hash(path) or file_hash(path) for name, path in _files(place, revision)}


def _files(place: str, revision: str | None) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the files of a local folder, or of a snapshot in the hub's cache."""
    folder = Path(place) if Path(place).is_dir() else hub.snapshot(place, "model", revision)
    for path in sorted(folder.rglob("*")) if folder else ():
        name = path.relative_to(folder) if folder else path
        if path.is_file() and name.parts[0] not in UNTOLD:
            yield str(name), path
