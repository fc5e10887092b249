"""Files that mocae did not write are never written over, by no command."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocae.errors import ArtifactError
from mocae.outputs import MADE, claim, refuse_file, refuse_foreign, writing
from mocae.pipelines.judge_training import train_judge
from mocae.stages.store import Store

FILES = ("README.md", "report.json")


def test_a_folder_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}', encoding="utf-8")
    store = Store(tmp_path, kind="run", files=FILES)
    message = r"holds files that mocae did not write there \(README.md, manifest.json\); give a new or an empty folder"
    with pytest.raises(ArtifactError, match=message), store.locked():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "manifest.json"]


def test_a_model_folder_is_not_filled_by_a_judge(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ArtifactError, match=r"did not write there \(config.json\)"):
        train_judge("safety-classifier", [tmp_path / "rows.jsonl"], out=tmp_path)


@pytest.mark.parametrize("made", [False, True])
def test_a_new_or_empty_folder_is_claimed_and_another_command_refused(tmp_path: Path, made: bool) -> None:
    out = tmp_path / "out"
    if made:
        out.mkdir()
    for _ in range(2):  # the same command goes on
        with Store(out, kind="run", files=FILES).locked():
            (out / "experts").mkdir(exist_ok=True)
    with pytest.raises(ArtifactError, match=r"holds what `mocae run` made; give another folder"):
        refuse_foreign(out, "eval")


def test_what_somebody_put_into_our_folder_later_is_not_written_over(tmp_path: Path) -> None:
    claim(tmp_path, "run")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    refuse_foreign(tmp_path, "run", FILES)  # nobody writes that
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"would write over README.md, which it did not write or which was changed"):
        refuse_foreign(tmp_path, "run", FILES)
    (tmp_path / "README.md").unlink()
    with writing(tmp_path, "run", FILES):
        (tmp_path / "README.md").write_text("ours", encoding="utf-8")
    refuse_foreign(tmp_path, "run", FILES)
    (tmp_path / "README.md").write_text("ours, and a word of mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"would write over README.md"):
        refuse_foreign(tmp_path, "run", FILES)


def test_a_kill_while_the_files_are_written_leaves_them_ours(tmp_path: Path) -> None:
    killed = writing(tmp_path, "run", FILES)
    killed.__enter__()
    (tmp_path / "README.md").write_text("half", encoding="utf-8")
    refuse_foreign(tmp_path, "run", FILES)


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("run", "manifest.json", '{"base": {"fingerprint": "0"}}'),
        ("run", "experts/honesty/stage.json", '{"seal": "0"}'),
        ("eval", "eval.json", '{"parts": {}}'),
        ("ablate", "ablation.json", '{"seeds": [0]}'),
    ],
)
def test_a_folder_of_an_earlier_version_is_known(tmp_path: Path, kind: str, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text("ours", encoding="utf-8")
    refuse_foreign(tmp_path, kind, FILES)  # type: ignore[arg-type]
    claim(tmp_path, kind, FILES)  # type: ignore[arg-type]
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"would write over README.md"):
        refuse_foreign(tmp_path, kind, FILES)  # type: ignore[arg-type]


def test_a_single_file_is_replaced_only_where_it_is_ours(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    refuse_file(page, "--out")
    page.write_text(f"<meta content='{MADE}'>", encoding="utf-8")
    refuse_file(page, "--out")
    page.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"--out .*page.html: is there and mocae did not write it; give another"):
        refuse_file(page, "--out")
    with pytest.raises(ArtifactError, match="--out"):
        refuse_file(tmp_path, "--out")
