"""Baselines of git: what a commit has of a model, and what git knows of a run's folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from hwbench.errors import UsageError
from hwbench.lower.onnx_file import external_files
from hwbench.watch.baselines import Baselines, baseline_files
from hwbench.watch.commits import commit_of, file_at, git_tags


def git_in(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def with_external_data(location: str, floats: int) -> onnx.ModelProto:
    """A model of one tensor, whose data lie in another file."""
    weights = onnx.TensorProto(name="w", dims=[floats], data_type=onnx.TensorProto.FLOAT)
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    y = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [floats])
    graph = onnx.helper.make_graph([], "net", [], [y], [weights])
    return onnx.helper.make_model(graph)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A clone of one commit, with a model in a folder."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.onnx").write_bytes(b"before")
    git_in(tmp_path, "init", "-q", "-b", "main")
    git_in(tmp_path, "add", ".")
    git_in(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


@pytest.fixture
def big(clone: Path) -> tuple[Path, Path]:
    """A model of it, and its external data in a folder of their own; both committed."""
    model, data = clone / "models" / "big.onnx", clone / "models" / "parts" / "weights"
    data.parent.mkdir()
    onnx.save(with_external_data("parts/weights", 4), model)
    data.write_bytes(b"then" * 4)
    git_in(clone, "add", ".")
    git_in(clone, "commit", "-q", "-m", "two")
    return model, data


class TestGit:
    def test_tags_of_a_run(self, clone: Path) -> None:
        tags = git_tags(clone)
        assert (len(tags["commit"]), tags["branch"], tags["dirty"]) == (40, "main", "no")
        (clone / "models" / "net.onnx").write_bytes(b"after")
        assert git_tags(clone)["dirty"] == "yes"

    def test_outside_of_a_clone_there_are_none(self, tmp_path: Path) -> None:
        assert git_tags(tmp_path / "models") == {}

    def test_a_baseline_of_git_is_run(self, clone: Path) -> None:
        model = clone / "models" / "net.onnx"
        model.write_bytes(b"after")
        with baseline_files("main", [model]) as found:
            assert found.files[model].read_bytes() == b"before"
            assert found.files[model].name == "net.onnx"
            assert found.commit == commit_of("main", clone)
            assert not found.unchanged
        assert not found.files[model].exists()

    def test_a_project_is_that_of_all_its_worktrees(self, clone: Path, tmp_path: Path) -> None:
        assert git_tags(clone / "models")["project"] == clone.name
        git_in(clone, "worktree", "add", "-q", "-b", "other", str(tmp_path / "elsewhere"))
        tags = git_tags(tmp_path / "elsewhere")
        assert (tags["project"], tags["branch"]) == (clone.name, "other")

    def test_what_is_the_same_and_what_is_new_has_no_baseline(self, clone: Path) -> None:
        same, new, made = (clone / "models" / f"{name}.onnx" for name in ("net", "new", "made"))
        new.write_bytes(b"new")
        made.write_bytes(b"made")
        git_in(clone, "add", str(new))
        commit = commit_of("main", clone)
        with baseline_files("main", [same, new, made]) as found:
            assert found == Baselines({}, commit, frozenset({same}), frozenset({new}))

    def test_a_model_comes_with_its_external_data(self, big: tuple[Path, Path]) -> None:
        """Both as of the commit; and where the data alone differ, the model is another one."""
        model, data = big
        with baseline_files("main", [model]) as found:
            assert found.unchanged == {model}
        data.write_bytes(b"now." * 4)
        with baseline_files("main", [model]) as found:
            assert (found.files[model].parent / "parts" / "weights").read_bytes() == b"then" * 4
            assert found.files[model].read_bytes() == model.read_bytes()

    def test_data_whose_folder_is_gone_are_the_commits(self, big: tuple[Path, Path]) -> None:
        model, data = big
        data.unlink()
        data.parent.rmdir()
        with baseline_files("main", [model]) as found:
            assert (found.files[model].parent / "parts" / "weights").read_bytes() == b"then" * 4

    def test_what_git_cannot_bring_is_not_new(self, clone: Path) -> None:
        """As where Git LFS may not fetch what the commit has."""
        model = clone / "models" / "net.onnx"
        (clone / ".gitattributes").write_text("*.onnx filter=far\n")
        for name, value in (("clean", "cat"), ("smudge", "false"), ("required", "true")):
            git_in(clone, "config", f"filter.far.{name}", value)
        with (
            pytest.raises(UsageError, match=r"net\.onnx: \w{12} has it, but git cannot bring it:"),
            baseline_files("main", [model]),
        ):
            pass

    def test_a_link_is_no_model(self, clone: Path) -> None:
        model = clone / "models" / "newest.onnx"
        model.symlink_to("net.onnx")
        git_in(clone, "add", ".")
        git_in(clone, "commit", "-q", "-m", "two")
        with (
            pytest.raises(UsageError, match="as a link: name the file that it leads to"),
            baseline_files("main", [model]),
        ):
            pass

    def test_a_clone_within_is_asked_for_its_own(self, clone: Path) -> None:
        """A submodule, say: what it does not know is not new there."""
        inside = clone / "inside"
        inside.mkdir()
        model = inside / "net.onnx"
        model.write_bytes(b"inside")
        for what in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "one")):
            git_in(inside, *what)
        model.write_bytes(b"changed")
        models = [clone / "models" / "net.onnx", model]
        with baseline_files("main", models) as found:
            assert found.files[model].read_bytes() == b"inside"
        git_in(clone, "branch", "release")
        with (
            pytest.raises(UsageError, match=r"inside/net\.onnx: the clone .* knows no 'release'"),
            baseline_files("release", models),
        ):
            pass

    def test_what_a_model_asks_for_outside_of_its_folder_is_not_fetched(self, clone: Path) -> None:
        (clone / "models" / "secret").write_bytes(b"no")
        for place in ("../secret", "/etc/hostname", ""):
            content = with_external_data(place, 4).SerializeToString()
            assert external_files(content) == []
        assert external_files(b"no model") == []

    def test_a_pointer_of_git_lfs_is_no_model(self, clone: Path) -> None:
        model = clone / "models" / "net.onnx"
        model.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        git_in(clone, "commit", "-q", "-a", "-m", "pointer")
        with (
            pytest.raises(UsageError, match="has it in Git LFS: run git lfs install"),
            baseline_files("main", [model]),
        ):
            pass

    def test_a_file_that_was_not_there(self, clone: Path) -> None:
        assert file_at("HEAD", clone / "models", "other.onnx") is None

    def test_no_such_reference(self, clone: Path) -> None:
        with (
            pytest.raises(UsageError, match="no file, folder, or commit"),
            baseline_files("nonsense", [clone / "models" / "net.onnx"]),
        ):
            pass

    def test_an_option_is_no_reference(self, clone: Path) -> None:
        with pytest.raises(UsageError, match="name a commit"):
            commit_of("--upload-pack=x", clone)
