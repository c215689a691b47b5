"""Networks and arguments that do not fit are refused by one sentence that names them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from cases import CASES, OUTPUT_CASES, UNIT_CASES

from landscape import certify, classify, connect, curvature, polish, prune, slices, solve
from landscape.architectures import GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.network import read
from landscape.problem import Problem
from landscape.stationarity import Classifier, census

RNG = np.random.default_rng(0)
PROBLEM = Problem(RNG.standard_normal((8, 2)), RNG.standard_normal(8), 0.1)
WIDER = Problem(RNG.standard_normal((8, 3)), PROBLEM.y, 0.1)


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


def values(hidden=(2, 2), output=(2,), **more):
    return {"hidden": ones(*hidden), "output": ones(*output), **more}


NETWORKS = {
    "none": (None, "network is a NoneType"),
    "number": (3, "network is a int"),
    "text": ("best", "network is a str"),
    "other width of data": (values(hidden=(2, 5)), r"hidden has shape \(2, 5\).*\(m, 2\)"),
    "other network": (WIDER, r"hidden has shape \(\d+, 3\).*\(m, 2\)"),
    "two widths": (values(output=(3,)), r"output has shape \(3,\).*m = 2 neurons"),
    "batch": (values(hidden=(4, 2, 2), output=(4, 2)), r"hidden has shape \(4, 2, 2\)"),
    "missing": ({"hidden": ones(2, 2)}, "parameters hidden: .* are hidden, output"),
    "too many": (values(constant=ones()), "constant, hidden, output: .* are hidden, output"),
    "text inside": ({"hidden": "a", "output": ones(2)}, "hidden holds no numbers"),
    "not a number": (values(output=(0,)) | {"output": ones(2) * np.nan}, "NaN or infinite"),
}


@cache
def best():
    """Return an optimal network of the problem."""
    return solve(PROBLEM).network()


READERS = {
    "read": read,
    "certify": lambda p, network: certify(p, [network]),
    "classify": lambda p, network: classify(p, [network]),
    "prune": prune,
    "connect": lambda p, network: connect(p, network, best()),
    "around": slices.around,
    "through": lambda p, network: slices.through(p, [network, network]),
    "segment_extrema": lambda p, network: slices.segment_extrema(p, network, network),
    "trajectory": lambda p, network: slices.trajectory(p, [network] * 3),
    "spectrum": curvature.spectrum,
    "neuron_blocks": curvature.neuron_blocks,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_no_network_of_the_problem_is_refused_everywhere(kind, reader):
    network, message = NETWORKS[kind]
    if network is WIDER:
        network = solve(WIDER).network()
    with pytest.raises(BadInput, match="(?s)" + message):
        READERS[reader](PROBLEM, network)


def test_a_free_bias_and_gates_are_asked_for():
    free = PROBLEM.replace(architecture=TwoLayer("free"))
    with pytest.raises(BadInput, match="constant, hidden, output"):
        read(free, values(hidden=(2, 3)))
    gated = PROBLEM.replace(architecture=GatedReLU())
    with pytest.raises(BadInput, match="gate, hidden, output"):
        read(gated, values())


def test_parameters_are_read_as_arrays_and_copied():
    network = {"hidden": np.ones((2, 2), dtype=np.float32), "output": [1.0, 2.0]}
    found = read(PROBLEM, network)
    assert {v.dtype for v in found.values()} == {torch.float64}
    found["hidden"].zero_()
    assert network["hidden"].all()
    assert classify(PROBLEM, network).objective == PROBLEM.objective(read(PROBLEM, network))


@cache
def floors_given():
    """Return what no floor of the problem is: a solution, and one of other targets."""
    return solve(PROBLEM), solve(PROBLEM.replace(y=5 * PROBLEM.y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effort": "high"}, "effort is 'high'"),
        ({"effort": -1}, "effort is -1"),
        ({"tolerance": "small"}, "tolerance is 'small'"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"global_tolerance": 1.0}, "global_tolerance is 1.0"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"floor": "solution"}, "floor is a Solution: .*certificate"),
        ({"floor": "scaled"}, "floor is of another problem"),
    ],
)
def test_a_classifier_refuses_arguments_by_name(options, message):
    solution, scaled = floors_given()
    floors = {"solution": solution, "scaled": scaled.certificate}
    options = {k: floors.get(v, v) if k == "floor" else v for k, v in options.items()}
    with pytest.raises(BadInput, match="(?s)" + message):
        Classifier(PROBLEM, **options)


def test_a_floor_above_the_objective_is_refused():
    """Same data and loss, so only β tells the problems apart; a floor of a larger β is higher."""
    floor = solve(PROBLEM.replace(beta=0.5)).certificate
    with pytest.raises(BadInput, match="no lower bound of this problem"):
        Classifier(PROBLEM, floor)(solve(PROBLEM).network())


def test_a_loss_with_kinks_of_its_own_is_refused():
    problem = Problem(PROBLEM.X, np.sign(PROBLEM.y), 0.1, loss="hinge")
    with pytest.raises(BadInput, match=r"loss is hinge.*dual=solution\.dual"):
        classify(problem, solve(problem).network())


def test_other_arguments_are_refused_by_name():
    network = solve(PROBLEM).network()
    batch = {k: v.detach()[None] for k, v in network.values.items()}
    for message, call in {
        "tolerance is -1": lambda: polish(PROBLEM, batch, tolerance=-1),
        "iterations is -1": lambda: polish(PROBLEM, batch, iterations=-1),
        "leading axis is empty": lambda: polish(PROBLEM, {k: v[:0] for k, v in batch.items()}),
        "no leading axis": lambda: polish(PROBLEM, {k: v[0] for k, v in batch.items()}),
        r"hidden has shape \(2, 5\)": lambda: polish(PROBLEM, values((1, 2, 5), (1, 2))),
        "runs are a list": lambda: polish(PROBLEM, [batch]),
        "verdict 'best'": lambda: census(Classifier(PROBLEM), [network]).share("best"),
        "reach is 'a'": lambda: slices.around(PROBLEM, network, reach="a"),
        "seed is 'a'": lambda: slices.around(PROBLEM, network, seed="a"),
        "points is 1": lambda: slices.around(PROBLEM, network, points=1),
        "bound is 'a'": lambda: slices.around(PROBLEM, network, points=3).gaps("a"),
        "networks are 1": lambda: slices.through(PROBLEM, network),
        "count is 0": lambda: curvature.spectrum(PROBLEM, network, count=0, dense=0),
        "iterations is 0": lambda: curvature.spectrum(PROBLEM, network, dense=0, iterations=0),
        "no parameters": lambda: curvature.spectrum(PROBLEM, values((0, 2), (0,))),
        "no neurons": lambda: curvature.neuron_blocks(
            PROBLEM.replace(architecture=TwoLayer("free")),
            values((0, 3), (0,), constant=ones()),
        ),
    }.items():
        with pytest.raises(BadInput, match="(?s)" + message):
            call()


def test_whole_numbers_of_numpy_are_whole_numbers():
    network = solve(PROBLEM).network()
    found = slices.around(PROBLEM, network, points=np.int64(5))
    assert found.objectives.shape == (5, 5)
    assert np.isnan(census(Classifier(PROBLEM), []).share("global optimum"))


UNITS = {
    case.problem.architecture.label: case.problem
    for case in (*UNIT_CASES, *OUTPUT_CASES, *CASES)
    if not case.problem.architecture.layered
    and case.problem.architecture.oracle(case.problem, 0) is not None
}


@cache
def optimum(label):
    """Return the optimum of a tiny problem, solved once."""
    return solve(UNITS[label])


SPOILED = {
    "missing": lambda units: dict(list(units.items())[1:]),
    "too many": lambda units: {**units, "others": np.ones(len(next(iter(units.values()))))},
    "wider": lambda units: {k: np.stack([v, v], axis=-1) for k, v in units.items()},
    "not a number": lambda units: {k: v * np.nan for k, v in units.items()},
    "text": lambda units: {k: ["a"] * len(v) for k, v in units.items()},
    "none at all": lambda units: {k: v[:0] for k, v in units.items()},
    "ragged": lambda units: {k: [[1.0, 2.0], [3.0]] for k in units},
    "one number": lambda units: dict.fromkeys(units, 1.0),
    "no names": lambda units: next(iter(units.values())),
}


@pytest.mark.parametrize("spoiled", SPOILED)
@pytest.mark.parametrize("label", UNITS)
def test_what_is_no_units_of_the_architecture_is_refused(label, spoiled):
    problem, units = UNITS[label], dict(optimum(label).point.program.units)
    with pytest.raises(BadInput, match=r"^patterns.*takes"):
        solve(problem, SPOILED[spoiled](units))


@pytest.mark.parametrize("label", UNITS)
def test_units_of_an_optimum_and_of_a_network_are_taken(label):
    """Round trip: what programs hold passes, and its optimum is the one it came from."""
    problem, best = UNITS[label], optimum(label)
    again = solve(problem, dict(best.point.program.units))
    assert again.objective == pytest.approx(best.objective, rel=1e-9)
    network = {k: v[0] for k, v in problem.architecture.initial(problem, 3, [0]).items()}
    program = problem.architecture.own(problem, network)
    assert solve(problem, program.units).objective >= best.objective * (1 - 1e-9)


@pytest.mark.parametrize(
    ("label", "name", "value", "sentence"),
    [
        ("vector_relu", "directions", 2.0, "length 2: all must have length 1"),
        ("normalised_relu", "directions", 2.0, "directions are not those of units of size one"),
        ("attention", "second", 3.0, "second are not those of units of size one"),
        ("polynomial", "directions", 0.5, "directions are not those of units of size one"),
        ("wedge", "hidden", 2.0, "hidden are not those of units of size one"),
        ("deep_narrow", "signs", 0.5, "signs.* are not those of units of size one"),
        ("parallel_three_layer", "signs", 2.0, "signs must hold 1 and −1"),
        ("parallel_three_layer", "outputs", 0.0, "outputs must hold 1 and −1"),
        ("convolution_max", "selected", 99, r"selected must hold patches from −1 \(none\) to"),
        ("convolution_max", "signs", 2.0, "signs must hold 1 and −1"),
        ("circular", "frequency", -5, "frequency must hold places from 0 to"),
    ],
)
def test_units_with_numbers_that_no_unit_has_are_refused(label, name, value, sentence):
    """Units that are longer than they say would be too cheap: values would lie below the truth."""
    label = next(key for key in UNITS if key.startswith(label))
    problem, units = UNITS[label], dict(optimum(label).point.program.units)
    whole = np.issubdtype(units[name].dtype, np.integer)
    with pytest.raises(BadInput, match=sentence):
        solve(problem, {**units, name: units[name] * 0 + value if whole else units[name] * value})


def test_patterns_by_name_are_refused_where_there_are_patterns():
    with pytest.raises(BadInput, match=r"patterns has names: .*boolean array \(P, n\)"):
        solve(PROBLEM, {"directions": np.eye(2)})


@pytest.mark.parametrize("label", UNITS)
def test_units_in_single_precision_lists_and_tensors_are_taken(label):
    """They are brought to size one and double precision, so that no unit is cheaper than it is."""
    problem, best = UNITS[label], optimum(label)
    units = dict(best.point.program.units)
    single = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in units.items()}
    graded = {
        k: torch.tensor(v).requires_grad_() if v.dtype.kind == "f" else v for k, v in units.items()
    }
    for given in (single, {k: v.tolist() for k, v in units.items()}, graded):
        found = solve(problem, given)
        assert found.objective == pytest.approx(best.objective, rel=1e-5)
        assert found.objective >= best.objective * (1 - 1e-9)
