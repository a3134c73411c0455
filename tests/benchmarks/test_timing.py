from __future__ import annotations

from benchmarks.timing import OwnSeconds, alternate, median_ratio, throughput_table


def test_functions_take_turns_and_warm_up() -> None:
    calls: list[str] = []
    seconds = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_a_function_may_time_itself() -> None:
    assert alternate({"a": lambda: OwnSeconds(7.5)}, 2, warmups=0) == {"a": [7.5, 7.5]}
    # Another number, such as a loss, is no time.
    assert max(alternate({"a": lambda: 7.5}, 2, warmups=0)["a"]) < 1


def test_ratio_is_of_the_medians_and_its_range_of_the_turns() -> None:
    assert median_ratio([10.0, 2.0, 4.0], [2.0, 4.0, 1.0]) == "2.00 x (0.50..5.00)"


def test_throughput_is_at_the_median() -> None:
    table = throughput_table({"ours": [1.0, 2.0, 4.0]}, 64)
    assert table.splitlines()[-1] == "| ours | 2 | 1..4 | 32 |"
