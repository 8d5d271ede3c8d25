"""How rows are loaded, kept on disk, split, cut, dropped and counted (what of them is learnt: test_masks.py)."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lorasweep import cache, demo_rows
from lorasweep.data import IGNORED, build_datasets, divide, fingerprint, load
from lorasweep.model import build_tokenizer
from lorasweep.rules import UserError
from lorasweep.schema import Data, Model
from tests.conftest import tokenised


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(Model(source="random", name="tiny"))


def test_long_rows_are_cut_and_rows_with_nothing_left_are_dropped_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [{"prompt": "short", "completion": "yes"}, {"prompt": "word " * 60, "completion": "never reached"}]
    rows += [{"prompt": "blank", "completion": " "}, {"prompt": "cut", "completion": "yes " * 60}]
    split = tokenised(rows, Data(), tokenizer, 40)
    assert (split.counts.rows, split.counts.kept, split.counts.cut) == (4, 2, 1)
    assert split.counts.dropped == {"cut off": 1, "empty": 1}
    assert split.rows["row"][:] == [0, 3]
    assert split.counts.tokens == sum(map(len, split.rows["input_ids"]))
    assert split.counts.supervised_tokens == sum(label != IGNORED for row in split.rows for label in row["labels"])


def test_unknown_columns_are_listed_with_the_yaml_that_would_map_them(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r'data\.prompt="\{question\}".*question, answer'):
        tokenised([{"question": "a", "answer": "b"}], Data(), tokenizer)


def test_a_template_with_a_missing_column_lists_the_columns(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"question, answer; there is no quest\n  did you mean 'question'"):
        tokenised([{"question": "a", "answer": "b"}], Data(prompt="{quest}", completion="{answer}"), tokenizer)


def test_held_out_rows_are_the_same_every_time_and_in_no_other_split() -> None:
    data = Data(source="demo", eval_fraction=0.2, test_fraction=0.1)
    parts = divide(50, data, set())
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 35, "eval": 10, "test": 5}
    assert sorted(chain.from_iterable(parts.values())) == list(range(50))
    assert parts == divide(50, data, set())
    assert divide(50, replace(data, split_seed=1), set())["eval"] != parts["eval"]
    assert divide(50, data, {"eval"}).keys() == {"train", "test"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_local_files_of_every_kind_are_read(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows, path = Dataset.from_list(demo_rows.generate(12, 0)), tmp_path / f"rows.{kind}"
    writers = {"csv": rows.to_csv, "parquet": rows.to_parquet, "jsonl": rows.to_json}
    path.write_text(json.dumps(rows.to_list())) if kind == "json" else writers[kind](path)
    splits = build_datasets(Data(source="files", files=str(path), eval_fraction=0.25), tokenizer, None)
    assert (splits["train"].counts.kept, splits["eval"].counts.kept) == (9, 3)


def files_of(path: Path, *rows: dict[str, str]) -> Data:
    """Options for a new file with these rows, all of them for training."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(source="files", files=str(path), eval_fraction=0)


def kept_folders() -> set[Path]:
    """The prepared data sets on disk."""
    return {path for path in (cache.root() / "rows").glob("*") if path.is_dir()}


def test_a_file_changed_behind_its_modification_time_is_read_again(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    def text(data: Data) -> str:
        return str(tokenizer.decode(build_datasets(data, tokenizer, None)["train"].rows[0]["input_ids"]))

    path = tmp_path / "rows.jsonl"
    data = files_of(path, {"text": "one"})
    times = (path.stat().st_atime, path.stat().st_mtime)
    assert text(data) == "one<|im_end|>"
    files_of(path, {"text": "two"})
    os.utime(path, times)
    assert text(data) == "two<|im_end|>"


def test_prepared_rows_are_kept_until_anything_that_makes_them_changes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    data = files_of(tmp_path / "rows.jsonl", {"text": "river stone"}, {"text": "green lemon"})

    def made(data: Data, tokenizer: PreTrainedTokenizerBase = tokenizer, context: int | None = 64) -> int:
        before = kept_folders()
        build_datasets(data, tokenizer, context)
        return len(kept_folders() - before)

    assert made(data) == 1
    assert made(data) == 0
    assert made(replace(data, eval_fraction=0.5, split_seed=3, num_proc=2)) == 0, "how rows are divided is no matter"
    assert made(replace(data, max_length=3)) == 1
    assert made(replace(data, text="{text}!")) == 1
    other = build_tokenizer(Model(source="random", name="tiny"))
    assert made(data, other) == 0
    other.chat_template = "{{ messages }}"
    assert made(data, other) == 1
    files_of(tmp_path / "elsewhere.jsonl", {"text": "river stone"}, {"text": "green lemon"})
    assert made(replace(data, files=str(tmp_path / "elsewhere.jsonl"))) == 0, "the same content"


@pytest.mark.slow
def test_two_processes_that_prepare_the_same_rows_at_once_agree(tmp_path: Path) -> None:
    files_of(tmp_path / "rows.jsonl", *({"text": f"river stone {number}"} for number in range(3000)))
    program = (
        "from lorasweep.data import build_datasets\nfrom lorasweep.model import build_tokenizer\n"
        "from lorasweep.schema import Data, Model\n"
        f"data = Data(source='files', files={str(tmp_path / 'rows.jsonl')!r}, eval_fraction=0.1)\n"
        "splits = build_datasets(data, build_tokenizer(Model(source='random', name='tiny')), 64)\n"
        "print({name: split.digest() for name, split in splits.items()})\n"
    )
    before = kept_folders()
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1] != ""
    assert len(kept_folders() - before) == 1


def test_rows_are_the_same_prepared_by_one_process_or_by_several(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files_of(tmp_path / "rows.jsonl", *({"text": f"river stone {number}"} for number in range(2500)))
    one = build_datasets(data, tokenizer, 64)["train"]
    monkeypatch.setenv("LORASWEEP_CACHE", str(tmp_path / "other"))
    environment = os.environ
    two = build_datasets(replace(data, num_proc=2), tokenizer, 64)["train"]
    assert os.environ is environment
    assert len(list((tmp_path / "other" / "rows").glob("*/*.arrow"))) == 2
    assert one.digest() == two.digest()
    assert one.rows["row"][:] == two.rows["row"][:] == list(range(2500))


def test_evaluation_rows_that_are_training_rows_too_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"text": word} for word in ("river", "stone", "cloud", "tiger")]
    data = files_of(tmp_path / "rows.jsonl", *rows)
    files_of(tmp_path / "eval.jsonl", *rows[1:3], {"text": "lemon"})
    splits = build_datasets(replace(data, eval_files=str(tmp_path / "eval.jsonl")), tokenizer, None)
    assert splits["eval"].counts.also_in_train == 2
    assert splits["train"].counts.also_in_train == 0


def test_test_rows_that_are_evaluation_or_training_rows_too_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    data = files_of(tmp_path / "rows.jsonl", {"text": "river"}, {"text": "stone"})
    files_of(tmp_path / "eval.jsonl", {"text": "cloud"}, {"text": "tiger"})
    files_of(tmp_path / "test.jsonl", {"text": "stone"}, {"text": "cloud"}, {"text": "tiger"}, {"text": "lemon"})
    data = replace(data, eval_files=str(tmp_path / "eval.jsonl"), test_files=str(tmp_path / "test.jsonl"))
    counts = build_datasets(data, tokenizer, None)["test"].counts
    assert (counts.also_in_train, counts.also_in_eval) == (1, 2)


def test_what_a_killed_process_left_half_made_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASWEEP_CACHE", str(tmp_path))
    (tmp_path / "rows" / ".abc-killed").mkdir(parents=True)
    place = cache.folder("rows/abc", lambda staging: (staging / "rows.arrow").touch())
    assert [path.name for path in place.iterdir()] == ["rows.arrow"]
    assert sorted(path.name for path in place.parent.iterdir()) == ["abc", "abc.lock"]


def test_a_local_folder_is_read_like_a_data_set_on_the_hub(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    files_of(folder / "train.jsonl", {"text": "one"}, {"text": "two"})
    files_of(folder / "test.jsonl", {"text": "three"})
    data = Data(path=str(folder), test_split="test", eval_fraction=0)
    splits = build_datasets(data, tokenizer, None)
    assert {name: split.counts.kept for name, split in splits.items()} == {"train": 2, "test": 1}
    times = (folder / "train.jsonl").stat()
    files_of(folder / "train.jsonl", {"text": "six"}, {"text": "ten"})
    os.utime(folder / "train.jsonl", (times.st_atime, times.st_mtime))
    changed = build_datasets(data, tokenizer, None)
    assert changed["train"].digest() != splits["train"].digest()
    assert changed["test"].digest() == splits["test"].digest()
    with pytest.raises(UserError, match=r"data\.path.*\n.*Unknown split"):
        build_datasets(replace(data, test_split="held_out"), tokenizer, None)


def test_a_limit_holds_for_training_rows_alone(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = files_of(tmp_path / "rows.jsonl", *({"text": f"river {number}"} for number in range(20)))
    limited = replace(data, eval_files=data.files, limit=5)
    for _ in range(2):
        splits = build_datasets(limited, tokenizer, None)
        assert {name: split.counts.rows for name, split in splits.items()} == {"train": 5, "eval": 20}
    assert build_datasets(replace(data, limit=6), tokenizer, None)["train"].counts.rows == 6


def test_subsets_of_a_folder_are_told_apart(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    texts = {}
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    for name in ("one", "two"):
        data = Data(path=str(tmp_path), subset=name, eval_fraction=0)
        texts[name] = tokenizer.decode(build_datasets(data, tokenizer, None)["train"].rows[0]["input_ids"])
    assert texts == {"one": "one<|im_end|>", "two": "two<|im_end|>"}


def test_values_of_json_rows_are_what_they_are(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    values = ["2024-01-02", "a", 2, 0.5, 12345678901234567, True, {"x": 1}]
    rows = [{"q": "q", "a": value} for value in values]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[3:]))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "columns.json").write_text(
        json.dumps({name: [row[name] for row in rows] for name in ("q", "a")}, indent=1)
    )
    expected = [f"{value}<|im_end|>\n" for value in values]
    for name in ("*.jsonl", "rows.json", "columns.json"):
        data = Data(source="files", files=str(tmp_path / name), prompt="{q}", completion="{a}", eval_fraction=0)
        assert build_datasets(data, tokenizer, None)["train"].rows["answer"][:] == expected


def test_a_csv_with_an_index_is_read_and_one_with_a_name_twice_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "index.csv").write_text(",prompt,completion\n0,a,b\n")
    (tmp_path / "twice.csv").write_text("q,q,a\n0,a,b\n")
    data = Data(source="files", files=str(tmp_path / "index.csv"), eval_fraction=0)
    assert build_datasets(data, tokenizer, None)["train"].counts.kept == 1
    with pytest.raises(UserError, match="columns of different names; q is twice"):
        build_datasets(replace(data, files=str(tmp_path / "twice.csv")), tokenizer, None)


def test_cells_of_a_csv_file_are_text(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\n2 plus 1,3\nnull plus 2,\nNA,null\n")
    data = Data(source="files", files=str(tmp_path / "rows.csv"))
    assert load(data, data.files, None).rows.to_list() == [
        {"prompt": "2 plus 1", "completion": "3"},
        {"prompt": "null plus 2", "completion": ""},
        {"prompt": "NA", "completion": "null"},
    ]


def test_the_fingerprint_follows_the_content(tokenizer: PreTrainedTokenizerBase) -> None:
    digests = [
        fingerprint(data, build_datasets(data, tokenizer, None))["splits"]["train"]["sha256"]
        for data in (
            Data(source="demo", limit=20),
            Data(source="demo", limit=20),
            Data(source="demo", limit=20, response_only=False),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_generated_rows_are_right_different_and_the_same_for_a_seed() -> None:
    rows = demo_rows.generate(300, seed=3)
    assert rows == demo_rows.generate(300, seed=3) != demo_rows.generate(300, seed=4)
    assert len({row["prompt"] for row in rows}) == 300
    for row in rows:
        words = row["prompt"].split(": ")[-1].split()
        expected = {
            "What": lambda: str(int(words[2]) + int(words[4].rstrip("?"))),
            "Reverse": lambda: " ".join(words[::-1]),
            "Sort": lambda: " ".join(sorted(words)),
            "Write": lambda: words[-1],
        }[row["prompt"].split()[0]]
        assert row["completion"] == expected()
