from __future__ import annotations

import errno
import inspect

import pytest

from mdprop import errors
from mdprop.errors import DataError, MDPropError, ModelError, ParameterError, one_line, reports_errors


def test_one_line_folds_every_kind_of_white_space() -> None:
    assert one_line("a\n  b\t\tc\r\n") == "a b c"
    assert one_line(ValueError("first\nsecond")) == "first second"


def test_a_command_that_works_returns_its_value() -> None:
    @reports_errors
    def command(a: int, *, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert command(2, b=3) == 5
    assert (command.__name__, command.__doc__) == ("command", "Adds.")
    assert list(inspect.signature(command).parameters) == ["a", "b"]


@pytest.mark.parametrize("kind", [*MDPropError.__subclasses__(), MDPropError])
def test_a_users_mistake_is_one_line_and_exit_code_2(
    kind: type[MDPropError], capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def command() -> None:
        raise kind("the key\n    is wrong")

    with pytest.raises(SystemExit, match="2") as caught:
        command()
    assert caught.value.code == errors.EXIT_CODE == 2
    assert caught.value.__suppress_context__
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "error: the key is wrong\n")


def test_the_kinds_of_mistakes() -> None:
    assert {ParameterError, DataError, ModelError} < set(MDPropError.__subclasses__())


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        command()
    assert capsys.readouterr().err == "interrupted\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    @reports_errors
    def command() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        command()


@pytest.mark.parametrize("name", ["dvc", "matplotlib.axes"])
def test_a_missing_package_of_the_pipeline_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    with pytest.raises(SystemExit, match="2"):
        command()
    package = name.partition(".")[0]
    assert capsys.readouterr().err.startswith(
        f"error: this needs {package}, which is installed with the pipeline"
    )


@pytest.mark.parametrize("name", ["torch", "mdprop.gone", None])
def test_another_missing_module_is_a_fault_of_ours(name: str | None) -> None:
    @reports_errors
    def command() -> None:
        raise ModuleNotFoundError("No module named", name=name)

    with pytest.raises(ModuleNotFoundError, match="No module named"):
        command()


def test_a_full_disk_is_one_line_wherever_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "live/loss.tsv")
        except OSError:
            raise RuntimeError("PytorchStreamWriter failed")  # noqa: B904

    with pytest.raises(SystemExit, match="2"):
        command()
    line = (
        "error: live/loss.tsv cannot be written (No space left on device): free space there, then run again\n"
    )
    assert capsys.readouterr().err == line


def test_errors_that_are_no_trouble_of_a_disk_stay(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "a")

    with pytest.raises(FileNotFoundError):
        command()
