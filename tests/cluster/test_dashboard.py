"""Grafana's dashboard: laid out whole, and asking for metrics that trainings export, and for all of them."""

import json

import jsonschema
import promql_parser
import pytest
from cluster_files import CLUSTER, DASHBOARD, load
from kuberay_types import ANYTHING, NATURAL, TEXT, TRUTH, fields, one_of, some
from metric_names import COUNTERS, GAUGES

UNITS = ("none", "s", "percentunit")
_SOURCE = fields("type", "uid", type=one_of("prometheus"), uid=one_of("${datasource}"))
_TARGET = fields(
    "refId",
    "datasource",
    "expr",
    "legendFormat",
    refId=TEXT,
    datasource=_SOURCE,
    expr=TEXT,
    legendFormat=TEXT,
    instant=TRUTH,
    range=TRUTH,
)
_PANEL = fields(
    "id",
    "type",
    "title",
    "description",
    "datasource",
    "gridPos",
    "targets",
    "fieldConfig",
    id={"type": "integer", "minimum": 1},
    type=one_of("stat", "timeseries"),
    title={"type": "string", "minLength": 1},
    description={"type": "string", "minLength": 1},
    datasource=_SOURCE,
    gridPos=fields("x", "y", "w", "h", x=NATURAL, y=NATURAL, w=NATURAL, h=NATURAL),
    targets={**some(_TARGET), "minItems": 1},
    fieldConfig=fields(
        "defaults",
        defaults={
            "type": "object",
            "required": ["unit"],
            "properties": {"unit": one_of(*UNITS), "custom": ANYTHING},
        },
        overrides=some(ANYTHING),
    ),
    options={"type": "object"},
)
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "id": {"type": "null"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": some(_PANEL),
        "templating": fields("list", list=some({"type": "object", "required": ["name", "type"]})),
        "time": fields("from", "to", **{"from": TEXT, "to": TEXT}),
    },
}
"""The dashboard model of Grafana 12 and 13 (its version 1), as far as we use it."""


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text())


def asked(expression: str) -> set[str]:
    """The metrics that an expression of PromQL reads. ValueError where it is none."""
    found: set[str] = set()

    def visit(part: promql_parser.Expr) -> bool:
        if isinstance(part, promql_parser.MatrixSelector):
            part = part.vector_selector
        if isinstance(part, promql_parser.VectorSelector):
            assert part.name is not None
            found.add(part.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_grafana_has_its_fields(dashboard):
    jsonschema.validate(dashboard, SCHEMA)


def test_a_misspelt_field_is_found(dashboard):
    panel = dict(dashboard["panels"][0])
    panel["target"] = panel.pop("targets")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**dashboard, "panels": [panel]}, SCHEMA)


def test_panels_have_numbers_of_their_own_and_lie_side_by_side(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_it_asks_for_the_metrics_of_trainings_and_for_all_of_them(dashboard):
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set().union(*map(asked, expressions)) == {*GAUGES, *COUNTERS}
    # Of the runs that are chosen above it, and of each by itself.
    for expression in expressions:
        assert expression.count('{run=~"$run"}') == expression.count("ray_dalle2_")
        assert expression.count("by (run)") == expression.count("ray_dalle2_")


def test_what_it_lets_choose_from_is_there(dashboard):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert set(variables) == {"datasource", "run"}
    assert variables["run"]["definition"] == f"label_values({GAUGES[1]}, run)"


def test_an_expression_that_is_none_is_found():
    with pytest.raises(ValueError, match="matrix"):
        asked("last_over_time(ray_dalle2_loss)")


def test_grafana_is_told_where_dashboards_and_prometheus_are():
    folder = CLUSTER / "monitoring" / "grafana" / "provisioning"
    (source,) = load(folder / "datasources" / "prometheus.yaml")["datasources"]
    (provider,) = load(folder / "dashboards" / "files.yaml")["providers"]
    compose = load(CLUSTER / "monitoring" / "compose.yaml")["services"]
    port = source["url"].removeprefix("http://")
    assert f"--web.listen-address={port}" in compose["prometheus"]["command"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
