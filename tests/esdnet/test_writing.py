from __future__ import annotations

from pathlib import Path

import pytest

from esdnet.errors import CheckFailed, UserError, report_user_errors
from esdnet.writing import check_replaceable, check_writable, write_json, write_text, written_beside


def test_a_failure_on_the_way_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(TypeError), written_beside(path) as beside:
        beside.write_bytes(b"half" + None)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    message = r"a\.txt: cannot be written: No space left on device"
    with pytest.raises(UserError, match=message), written_beside(path), open("/dev/full", "w") as full:
        full.write("x")
    assert not path.exists()


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "is_folder", "message"),
    [
        ("missing/a.json", False, "there is no folder"),
        ("", False, "is a folder, expected the name of a file"),
        ("file/sub", True, "the folder cannot be made"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, name, is_folder, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        check_writable("--json", tmp_path / name, is_folder)


def test_an_output_folder_is_made(tmp_path):
    check_writable("--plots", tmp_path / "a" / "b", is_folder=True)
    assert (tmp_path / "a" / "b").is_dir()


# --- folders ----------------------------------------------------------------------------------------------------------


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text(text)


def test_an_earlier_folder_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "export"
    fill(path, "old")
    (path / "left over").write_text("")
    with written_beside(path) as beside:
        fill(beside, "new")
        assert (path / "a.txt").read_text() == "old"
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("a.txt", "new")]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, CheckFailed, OSError])
def test_a_failure_leaves_the_old_folder_and_nothing_beside(tmp_path, failure):
    path = tmp_path / "export"
    fill(path, "old")

    def write(beside: Path) -> None:
        fill(beside, "half")
        raise failure(28, "No space left on device")

    with pytest.raises(UserError if failure is OSError else failure), written_beside(path) as beside:
        write(beside)
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("was_folder", [True, False])
def test_a_file_never_takes_the_place_of_a_folder_nor_a_folder_that_of_a_file(tmp_path, was_folder):
    path = tmp_path / "export"
    fill(path, "old") if was_folder else path.write_text("old")
    with pytest.raises(UserError, match=r"export: cannot be written: .* directory"), written_beside(path) as beside:
        beside.write_text("new") if was_folder else fill(beside, "new")
    assert ((path / "a.txt") if was_folder else path).read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_never_written_is_said_and_the_old_folder_comes_back(tmp_path):
    """The block ends well without having written anything: the rename fails after the old one was moved aside."""
    path = tmp_path / "export"
    fill(path, "old")
    with pytest.raises(UserError, match=r"export: cannot be written: No such file"), written_beside(path):
        pass
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_relative_name_and_a_link_to_a_folder(tmp_path, monkeypatch):
    """The link is replaced; what it points to is not touched."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "elsewhere", "kept")
    Path("link").symlink_to("elsewhere")
    with written_beside("link") as beside:
        fill(beside, "new")
    assert not Path("link").is_symlink()
    assert (tmp_path / "elsewhere" / "a.txt").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]


def test_only_its_like_is_replaced(tmp_path):
    def is_export(path: Path) -> bool:
        return (path / "manifest").exists()

    target = tmp_path / "export"
    check_replaceable(target, "an export", is_export)  # free
    target.mkdir()
    with pytest.raises(UserError, match="exists and is not an export of this program; remove it or choose another -o"):
        check_replaceable(target, "an export", is_export)
    (target / "manifest").touch()
    check_replaceable(target, "an export", is_export)
    with pytest.raises(UserError, match="the folder that it goes to does not exist"):
        check_replaceable(tmp_path / "none" / "export", "an export", is_export)


def test_a_failed_check_is_status_1_and_a_mistake_2(capsys):
    def fail(error: Exception) -> int:
        raise error

    assert report_user_errors(lambda: fail(CheckFailed("lif1: 3 spikes differ"))) == 1
    assert capsys.readouterr().err == "check failed, nothing was written: lif1: 3 spikes differ\n"
    assert report_user_errors(lambda: fail(UserError("a.pt: not there"))) == 2
    assert capsys.readouterr().err == "error: a.pt: not there\n"
