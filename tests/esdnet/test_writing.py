from __future__ import annotations

import pytest

from esdnet.errors import UserError
from esdnet.writing import check_writable, write_json, write_text, written_beside


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
