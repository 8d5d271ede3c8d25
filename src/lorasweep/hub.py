"""Whether something on the Hugging Face hub can be had: in the local cache, or reachable now."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from lorasweep.rules import Problem

SECONDS_TO_ANSWER = 5.0


def problem(key: str, name: str, kind: str, revision: str | None = None) -> Problem | None:
    """Return why hub repository `name` (kind: model or dataset) cannot be used, within seconds; None if it can."""
    if _cached(name, kind, revision):
        return None
    if constants.HF_HUB_OFFLINE:
        return Problem(key, name, f"a local folder, or a {kind} already in the hub cache: HF_HUB_OFFLINE is set")
    try:
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS_TO_ANSWER)
    except GatedRepoError:
        return Problem(key, name, f"a {kind} you have access to: this one is gated (ask for access, then set HF_TOKEN)")
    except RepositoryNotFoundError:
        return Problem(key, name, f"an existing local folder or a {kind} on the hub; the hub knows none of this name")
    except HfHubHTTPError as error:
        return Problem(key, name, f"a {kind} the hub can deliver; it answered: {str(error).splitlines()[0]}")
    except HFValidationError as error:
        return Problem(key, name, f"a local folder or a hub id such as owner/name ({str(error).splitlines()[0]})")
    except Exception as error:  # the hub's client has changed its HTTP library, and with it these exceptions, before
        reason = f"the hub cannot be reached ({type(error).__name__})"
        return Problem(key, name, f"a local folder, or a {kind} already in the hub cache: {reason}")
    return None


def commit(name: str, kind: str, revision: str | None) -> str | None:
    """Return the commit of a hub repository in the local cache; None for a local folder or one that is not there."""
    found = snapshot(name, kind, revision)
    return found.name if found else None


def latest_commit(name: str, kind: str, revision: str | None) -> str | None:
    """Return the commit that a branch, a tag or null is of on the hub now."""
    sha: str | None = HfApi().repo_info(name, repo_type=kind, revision=revision).sha
    return sha


def snapshot(name: str, kind: str, revision: str | None) -> Path | None:
    """Return the folder in the local cache with the files of a hub repository at a revision."""
    if Path(name).exists():
        return None
    place = _cache_folder(name, kind)
    reference = place / "refs" / (revision or "main")
    found = reference.read_text().strip() if reference.is_file() else revision
    return place / "snapshots" / found if found and (place / "snapshots" / found).is_dir() else None


def blob_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file in the local cache, where the hub has named it by that (large ones)."""
    name = path.resolve().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _cached(name: str, kind: str, revision: str | None) -> bool:
    found = commit(name, kind, revision)
    if found is None:
        return False
    files = [path.name for path in (_cache_folder(name, kind) / "snapshots" / found).rglob("*")]
    if kind == "model":
        return "config.json" in files and any(file.endswith((".safetensors", ".bin")) for file in files)
    return bool(files)


def _cache_folder(name: str, kind: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
