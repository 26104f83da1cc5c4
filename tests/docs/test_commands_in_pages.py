"""Every command that a page shows is taken by its parser: the options are there, and a whole command parses. Python
compiles."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

from tests.distribution.test_wheel import PROJECT
from tests.docs.pages import PAGES, ROOT, commands, read

SYNOPSIS = re.compile(r"[\[|]|\.\.\.")  # shows what may be given, and is no command to type


class Parsed(Exception):
    """Carries the parser of a command, when it would have begun."""


def module_of(command: str) -> tuple[str, list[str]]:
    """The module that it runs, and its arguments as a shell gives them."""
    words = re.sub(r"^(\.venv/bin/)?python ", "", command)
    called, _, rest = words.removeprefix("-m ").partition(" ")
    if called in PROJECT["scripts"]:
        called = PROJECT["scripts"][called].split(":")[0]
    return called.removesuffix(".py").replace("/", "."), shlex.split(rest)


def parser_of(module: str, monkeypatch) -> argparse.ArgumentParser:
    def stop(parser, *_):
        raise Parsed(parser)

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        patched.setattr("sys.argv", [module])
        with pytest.raises(Parsed) as found:
            importlib.import_module(module).main()
    return found.value.args[0]


def wrong(command: str, monkeypatch) -> str | None:
    """What is wrong with it, if anything is."""
    module, arguments = module_of(command)
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.is_file():
        return f"no module {module}"
    if "ArgumentParser" not in file.read_text(encoding="utf-8"):
        return None  # a benchmark of no options
    parser = parser_of(module, monkeypatch)
    known = set(re.findall(r"--[a-z][\w-]*", parser.format_help()))
    if unknown := set(re.findall(r"(?<![\w-])--[a-z][\w-]*", command)) - known:
        return f"no option {', '.join(sorted(unknown))}"
    if SYNOPSIS.search(command):
        return None
    try:
        parser.parse_args(arguments)
    except SystemExit:
        return "does not parse"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page, monkeypatch):
    found = {command: wrong(command, monkeypatch) for command in commands(page)}
    named = {command: wrong(f"{command} ...", monkeypatch) for command in commands(page, ("code_inline",))}
    found |= named  # in the text commands are cut short
    assert {command: what for command, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("python hw_sim/energy.py --image x.png --htlm F", "no option --htlm"),
        ("esdnet-compare a.json [--hmtl F]", "no option --hmtl"),
        ("python -m esdnet.derain rainy.png", "does not parse"),
        ("python hw_sim/enery.py --image x.png", "no module hw_sim.enery"),
    ],
)
def test_a_wrong_command_is_noticed(command, what, monkeypatch):
    assert wrong(command, monkeypatch) == what


def test_python_in_pages_compiles():
    blocks = [token.content for page in PAGES for token in read(page) if token.info.startswith("python")]
    assert len(blocks) > 5
    for block in blocks:
        compile(block, "a page", "exec")


def test_there_are_commands():
    assert sum(len(commands(page)) for page in PAGES) > 90
