"""Whatever params.yaml holds: it loads, or one `ParameterError` says in plain words what is wrong."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mdprop.config import load_params
from mdprop.errors import ParameterError

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
PLAIN = YAML(typ="safe").load(TEXT)
FOREIGN = (
    "Input should",
    "Value error",
    "instance of",
    "Extra inputs",
    "Field required",
    "pydantic",
    "validation error",
)
LONGEST = 2000

fuzzed = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink takes minutes
    suppress_health_check=list(HealthCheck),
)


def places(section: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys and items."""
    items = section.items() if isinstance(section, dict) else enumerate(section)
    for key, value in items:
        yield (key,)
        if isinstance(value, (dict, list)):
            yield from ((key, *below) for below in places(value))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, 2, 3, 10**9, 10**12, 2**32, 2**64, 10**400, -(10**400)]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-300, 1e-30, 1e18, 1e38, 1e300]),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            "../raw",
            "/",
            "a/b",
            "~nouser/x",
            "a" * 300,
            "a" * 5000,
            "4/255",
            "1/0",
            "1e999999999",
            "ε",
            "\0",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
changes = st.lists(
    st.tuples(
        st.sampled_from(list(places(PLAIN))),
        st.sampled_from(["set", "delete", "add"]),
        values,
        st.text(max_size=8) | st.just("a" * 300),
    ),
    min_size=1,
    max_size=4,
)


def change(params: Any, place: tuple[Any, ...], how: str, value: Any, key: str) -> None:
    """Set, delete or add one thing, unless an earlier change took its place away."""
    section = params
    try:
        for part in place[:-1]:
            section = section[part]
        if how == "set":
            section[place[-1]] = value
        elif how == "delete":
            del section[place[-1]]
        elif isinstance(section, dict):
            section[key] = value
        elif isinstance(section, list):
            section.append(value)
    except (KeyError, IndexError, TypeError):
        pass


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], None]]:
    """Load some bytes as params.yaml, and hold what comes back to the promise."""
    path = tmp_path_factory.mktemp("fuzz") / "params.yaml"
    counted: Counter[str] = Counter()

    def load(content: bytes) -> None:
        path.write_bytes(content)
        counted["tried"] += 1
        try:
            load_params(path)
            counted["accepted"] += 1
        except ParameterError as error:
            counted["refused"] += 1
            text = str(error)
            assert text.startswith(str(path))
            assert len(text) <= LONGEST, text
            assert not [word for word in FOREIGN if word in text], text
            assert all(line.isprintable() for line in text.split("\n")), text
        counted["held"] += 1

    yield load
    print(f"\nparams.yaml: {dict(counted)}")


@settings(fuzzed, max_examples=80)
@given(changes)
def test_changed_values(load: Callable[[bytes], None], changes: list[Any]) -> None:
    params = copy.deepcopy(PLAIN)
    for each in changes:
        change(params, *each)
    written = json.dumps(params).replace("NaN", ".nan").replace("Infinity", ".inf")
    load(written.encode())


@settings(fuzzed, max_examples=40)
@given(st.integers(0, len(TEXT)), st.integers(0, 30), st.binary(max_size=6) | st.text(max_size=6))
def test_changed_text(load: Callable[[bytes], None], start: int, length: int, new: bytes | str) -> None:
    before = TEXT.encode()
    middle = new if isinstance(new, bytes) else new.encode("utf-8", "surrogatepass")
    load(before[:start] + middle + before[start + length :])


@settings(fuzzed, max_examples=40)
@given(st.binary(max_size=200) | st.text("-:[]{}&*!|>'\"%@`#,? \n\ta1", max_size=60).map(str.encode))
def test_other_content(load: Callable[[bytes], None], content: bytes) -> None:
    load(content)


@pytest.mark.parametrize("opening, closing", [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_deep_nesting(load: Callable[[bytes], None], opening: str, closing: str) -> None:
    for depth in (100, 900, 5000):
        load(f"loss: {{options: {opening * depth}1{closing * depth}}}".encode())
