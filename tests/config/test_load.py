from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocae.config import Recipe, dump_recipe, load_recipe, parse_recipe, shipped_recipes
from mocae.config.yaml import dump_yaml, read_yaml
from mocae.errors import ConfigError
from recipes_for_tests import small_recipe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(small_recipe()), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MOCAE_DATA_ROOT", "MOCAE_BASE_MODEL"):
        monkeypatch.delenv(variable, raising=False)


def load_text(path: Path, text: str) -> Recipe:
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def test_what_is_dumped_loads_as_the_same(file: Path) -> None:
    settings = [
        "experts.target_modules=[q_proj, v_proj]",
        "routing.temperature=0.7",
        "axes.0.train.hash_range=[0.0, 0.5]",
        "data_root=data",
        'base.shape={model_type: llama, note: "5e-4"}',
        "systems=[base, {name: half, policy: static, options: {weights: {honesty: -0.5}}}]",
    ]
    recipe = load_recipe(file, settings)
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert recipe.base.shape == {"model_type": "llama", "note": "5e-4"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
)
def test_yaml_reads_back_what_it_wrote(value: object) -> None:
    assert read_yaml(dump_yaml(value), "text") == value


def test_numbers_are_those_of_yaml_1_2() -> None:
    assert read_yaml("[5e-4, 1E3, 1.5e3, -2e0, .5, 10, '5e-4', 1.0.0, e5, 0.1.0.0]", "text") == [
        0.0005, 1000.0, 1500.0, -2.0, 0.5, 10, "5e-4", "1.0.0", "e5", "0.1.0.0",
    ]  # fmt: skip


def test_an_alias_is_a_copy() -> None:
    first, second = read_yaml("- &a {x: 1}\n- *a\n", "text")
    first["x"] = 2
    assert second == {"x": 1}


def test_unknown_keys_name_the_nearest(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, file.read_text() + "experts: {lerning_rate: 1, optimizer: {lerning_rate: 1}}\nsede: 1\n")
    lines = sorted(str(caught.value).splitlines())
    assert len(lines) == 3
    assert lines[0].startswith(f"{file}: experts.lerning_rate: unknown key 'lerning_rate'. Known: 'from_layer', ")
    assert lines[1].startswith(
        f"{file}: experts.optimizer.lerning_rate: unknown key 'lerning_rate'. Known: 'batch_size'"
    )
    assert lines[1].endswith("Did you mean 'learning_rate'?")
    assert lines[2].startswith(f"{file}: sede: unknown key 'sede'. Known: 'axes', ")
    assert lines[2].endswith("Did you mean 'seed'?")


def test_unknown_keys_inside_lists_know_the_keys_there() -> None:
    values = small_recipe()
    values["axes"][1]["train"]["limt"] = 3
    with pytest.raises(ConfigError, match=r"recipe: axes.1.train.0.limt: unknown key 'limt'. Known: 'hash_range', "):
        parse_recipe(values)


def test_missing_keys_are_told() -> None:
    values = small_recipe()
    del values["judges"], values["axes"][0]["test"]
    with pytest.raises(ConfigError) as caught:
        parse_recipe(values, where="x.yaml")
    assert str(caught.value).splitlines() == [
        "x.yaml: axes.0.test: missing; this key is required",
        "x.yaml: judges: missing; this key is required",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", r"not UTF-8 text \(byte 0\)"),
        (b"", r"empty\. Accepted: a YAML recipe"),
        (b"# only a comment\n", r"empty\. Accepted"),
        (b"- a\n", r"got a list at the top\. Accepted: a mapping with the keys of a recipe, name, seed"),
        (b"a: [1\n", r"line 2, column 1: not valid YAML"),
        (b"seed: 1\nname: x\nseed: 2\n", r"line 3, column 1: not valid YAML: key 'seed' is there twice"),
        (
            b"a: !!python/object/apply:os.getcwd []\n",
            r"line 1, column 4: not valid YAML: could not determine",
        ),
        (b"a: &a [*a]\n", r"not valid YAML: nested too deep, or an alias holds itself"),
        (b"? [a]\n: b\n", r"line 1, column 3: not valid YAML: found unhashable key"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"bad.yaml: {message}"):
        load_recipe(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: cannot be read: No such file or directory"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_recipe(tmp_path)


def test_the_environment_fills_what_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCAE_DATA_ROOT", "from-environment")
    monkeypatch.setenv("MOCAE_BASE_MODEL", "some/model")
    filled = parse_recipe(small_recipe(base={"model": None}))
    assert (filled.data_root, filled.base.model) == (Path("from-environment"), "some/model")
    told = parse_recipe(small_recipe(data_root="told"))
    assert (told.data_root, told.base.model) == (Path("told"), "pocket")
    over = parse_recipe(small_recipe(), ["base.model=other", "data_root=set"])
    assert (over.data_root, over.base.model) == (Path("set"), "other")


def test_a_bare_name_is_a_recipe_that_ships(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(shipped_recipes()) >= {"pocket", "pocket-ablation", "pocket-orders"}
    assert load_recipe("pocket") == load_recipe(shipped_recipes()["pocket"])
    with pytest.raises(ConfigError, match=r"^poket: no such file, and unknown recipe 'poket'.*mean 'pocket'"):
        load_recipe("poket")
    (tmp_path / "pocket").mkdir()  # as `--out pocket` leaves one
    assert load_recipe(Path("pocket")) == load_recipe(shipped_recipes()["pocket"])
    (tmp_path / "pocket").rmdir()
    (tmp_path / "pocket").write_text("name: 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^pocket: name: got 3"):  # a file comes first, and that is said
        load_recipe("pocket")
    assert "the file of that name in this folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^\S*x/pocket: cannot be read"):
        load_recipe(tmp_path / "x" / "pocket")
