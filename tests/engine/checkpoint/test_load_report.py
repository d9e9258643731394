import logging

from sgr_d2.engine.checkpoint.load_report import LoadReport, Skipped, make_report, summary


def test_every_tensor_is_in_exactly_one_list():
    own = ["a", "b", "sgr.c", "d"]
    report = make_report(own, ["b", "sgr.c", "d"], [Skipped("d", (2,), (3,))], ["y", "x"])
    assert report == LoadReport(["a"], [Skipped("d", (2,), (3,))], ["b"], ["sgr.c"], ["x", "y"])
    assert str(report) == (
        "1 tensors loaded, 1 skipped for their shape, 1 missing in the file, 2 of the file not used, 1 new"
    )


def test_sgr_is_new_only_to_a_file_that_has_nothing_of_it():
    own = ["a", "backbone.sgr.b", "backbone.sgr.c"]
    assert make_report(own, own[1:], [], []).new == ["backbone.sgr.b", "backbone.sgr.c"]
    partly = make_report(own, own[2:], [], [])
    assert partly.new == [] and partly.missing == ["backbone.sgr.c"]
    resized = make_report(own, own[1:], [Skipped("backbone.sgr.b", (1,), (2,))], [])
    assert resized.new == [] and resized.missing == ["backbone.sgr.c"]
    assert "new" not in str(make_report(["a"], [], [], []))


def test_names_are_listed_up_to_ten_and_grouped_beyond():
    assert summary(["b.x", "a.y"]) == "b.x, a.y"
    assert summary([f"a.{i}" for i in range(10)]).endswith("a.8, a.9")
    assert summary([f"a.{i}.w" for i in range(11)]) == "a.* (11)"
    layers = [f"head.layers.{i}.{part}" for i in range(4) for part in ("w", "b", "norm.w")]
    assert summary(layers) == ", ".join(f"head.layers.{i}.* (3)" for i in range(4))
    assert summary([*layers, "lonely"]).endswith("head.layers.3.* (3), lonely")
    assert summary([f"{i}.w" for i in range(13)]).endswith("8.w, 9.w and 3 more")


def test_the_log_is_short_and_warns_of_what_is_not_expected(caplog):
    report = LoadReport(
        loaded=["a"] * 500,
        skipped=[Skipped(f"head.s{i}.w", (2, 3), (4, 3)) for i in range(12)],
        missing=["m.w"],
        new=[f"sgr.{i}.w" for i in range(40)],
        unused=["criterion.empty_weight", "fc.weight", "odd.w", "res2.0.conv1.norm.weight"],
    )
    with caplog.at_level(logging.INFO):
        report.log(logging.getLogger("test"))
    lines = {record.getMessage(): record.levelno for record in caplog.records}
    assert lines["Weights: " + str(report)] == logging.INFO
    assert lines["Skipped head.s0.w: (2, 3) in the file, (4, 3) in the model"] == logging.WARNING
    assert lines["Missing in the file: m.w"] == logging.WARNING
    assert lines["New, at their initial values: sgr.* (40)"] == logging.INFO
    assert lines["Not used, as expected: criterion.empty_weight, fc.weight"] == logging.INFO
    assert lines["Not used: odd.w, res2.0.conv1.norm.weight"] == logging.WARNING
    assert len(lines) == 1 + 10 + 1 + 4
