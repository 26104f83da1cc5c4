from __future__ import annotations

from pathlib import Path

import pytest

from esdnet.command.errors import CannotWrite, CheckFailed, UserError
from esdnet.command.writing import (
    check_folder,
    check_outputs,
    check_replaceable,
    check_writable,
    make_folder,
    say_target,
    write_json,
    write_text,
    written_beside,
)


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
    with pytest.raises(CannotWrite, match=message), written_beside(path), open("/dev/full", "w") as full:
        full.write("x")
    assert not path.exists()


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/a.json", "there is no folder"),
        ("", "is a folder, expected the name of a file"),
        ("file/sub", "there is no folder"),
        ("/dev/null", "is no regular file"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"^--json .*{message}"):
        check_writable("--json", tmp_path / name)


def test_a_folder_is_checked_without_being_made(tmp_path):
    check_folder("--plots", tmp_path / "a" / "b")
    check_folder("--plots", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for name in ("file", "file/sub"):
        with pytest.raises(UserError, match=r"^--plots .*file.*: the folder cannot be made: .*file is a file"):
            check_folder("--plots", tmp_path / name)


def test_a_folder_is_made_with_those_above_it(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file/sub: the folder cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "sub")


def test_no_output_takes_the_place_of_another_or_of_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.png").touch()
    Path("link.json").symlink_to("e.json")
    one, other, read, image = Path("e.json"), Path("./r.html"), Path("x.png"), Path("new") / "x.png"
    check_outputs({"--json": one, "--html": other, "--csv": None}, [read], [image])
    for files, message in [
        ({"--json": one, "--html": tmp_path / "e.json"}, "--html .*e.json: would overwrite what --json writes"),
        ({"--json": Path("link.json"), "--html": one}, "--html e.json: would overwrite what --json writes"),
        ({"--json": Path("..") / tmp_path.name / "x.png"}, "--json .*x.png: would overwrite an input"),
        ({"--json": Path("no") / "e.json"}, "--json no/e.json: there is no folder no"),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            check_outputs(files, [read], [image])
    Path("new").mkdir()
    with pytest.raises(UserError, match=r"^--json new/x\.png: would overwrite another output"):
        check_outputs({"--json": image}, [read], [image])


def test_where_an_export_goes_is_said_in_full(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    say_target(Path("runs") / "ema.pt", Path("ema_nir"))
    assert capsys.readouterr().err == f"ema.pt: its export will be {tmp_path / 'ema_nir'}\n"


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
