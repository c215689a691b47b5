"""Half-spaces, faces and trees against whole-number directions and networks walked by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from landscape import losses
from landscape.arrangements.circles import Circles
from landscape.arrangements.faces import enumerate_closed, middle, two_sided
from landscape.arrangements.halfspaces import Halfspaces, Weights
from landscape.arrangements.rows import hyperplanes
from landscape.arrangements.trees import Tree
from landscape.dense import DenseAtoms, DenseCones, GroupProgram, Parts
from landscape.pricing import groups

RNG = np.random.default_rng

PLANES = {
    "one row": np.array([[2, -1]]),
    "independent": np.array([[2, 1], [-1, 3]]),
    "generic": RNG(0).integers(-9, 10, (7, 2)),
    "duplicates": np.array([[1, 2], [2, 4], [1, 2], [3, -1], [0, 1]]),
    "antipodal": np.array([[1, 2], [-2, -4], [3, -1], [-3, 1], [1, 0]]),
    "zero rows": np.array([[0, 0], [1, -1], [0, 0], [2, 3]]),
    "rank one": np.array([[1, -2], [-3, 6], [2, -4], [0, 0]]),
    "only zeros": np.zeros((2, 2), dtype=int),
}


def every_pattern(X):
    """All 1[Xh ≥ 0] in the plane: h = 0, h on each line, and h between neighbouring ones."""
    on = [v for a, b in X.tolist() if (a, b) != (0, 0) for v in ((-b, a), (b, -a))] or [(1, 0)]
    on += [(1, 0), (0, 1), (-1, 0), (0, -1)]
    on = sorted(
        {tuple(np.array(h) // np.gcd(*h)) for h in on}, key=lambda h: np.arctan2(h[1], h[0])
    )
    between = [(a + c, b + d) for (a, b), (c, d) in zip(on, on[1:] + on[:1], strict=True)]
    H = np.array([(0, 0), *on, *between])
    return np.unique(H @ X.T >= 0, axis=0)


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("mode", ["listed", "turned", "searched"])
def test_half_planes_weigh_as_much_as_the_best_of_all_directions(name, mode, monkeypatch):
    """Ties are on; where nothing but a relaxation is left it is never below."""
    X = PLANES[name]
    if mode != "listed":
        monkeypatch.setattr("landscape.arrangements.halfspaces.LISTED", 0)
    half = Halfspaces(X.astype(float), 100)
    if mode == "searched":
        half.turned = False
    patterns = every_pattern(X)
    for seed in range(8):
        nu = RNG(seed).standard_normal(len(X))
        nu = np.round(nu, 1) if seed % 2 else nu
        best = float((patterns @ nu).max())
        bound, gates = half.heaviest(nu, 6)
        assert bound >= best
        if mode != "searched":
            assert bound == pytest.approx(best, abs=1e-12)
        else:  # every hyperplane chooses for itself
            assert bound <= np.maximum(nu, 0.0).sum() + 1e-9
        own = (gates @ X.T >= -1e-9 * np.linalg.norm(gates, axis=1, keepdims=True)) @ nu
        assert own.max() <= best + 1e-12
        if mode != "searched":  # one of the directions attains it
            assert own.max() == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", PLANES)
def test_closed_patterns_in_the_plane_are_those_of_whole_number_directions(name):
    found = np.asarray(enumerate_closed(PLANES[name].astype(float)))
    assert {row.tobytes() for row in found} == {
        row.tobytes() for row in every_pattern(PLANES[name])
    }
    assert len(found) == len(np.unique(found, axis=0))


def test_rounding_of_the_weights_is_charged():
    """Sums of 1 and 1e17 that cancel, in exact arithmetic."""
    X = PLANES["generic"]
    patterns = every_pattern(X)
    for seed in range(10):
        nu = RNG(seed).standard_normal(7)
        nu[:2] = 1e17, -1e17
        nu = nu[RNG(seed).permutation(7)]
        exact = [Fraction(float(v)) for v in nu]
        best = max(sum(v for v, on in zip(exact, row, strict=True) if on) for row in patterns)
        assert Fraction(Halfspaces(X.astype(float), 100).heaviest(nu, 3)[0]) >= best


def test_choices_and_weights_of_hyperplanes():
    """On the plane both sides count; a tie of the options goes to the positive side."""
    w = Weights(np.array([2.0, -1.0, 1.0, -1.0, 0.0]), np.array([-1.0, 3.0, 2.0, -2.0, 0.0]))
    assert w.choice.tolist() == [1, -1, 0, 1, 1]
    sides = np.array([[1, -1, 0, 1, 1], [0, 0, 0, 0, 0], [-1, 1, 1, -1, 0]])
    assert w.on(sides).tolist() == [2 + 3 + 3 - 1, 1 + 2 + 3 - 3, -1 - 1 + 1 - 2]
    planes = hyperplanes(PLANES["antipodal"].astype(float))
    assert sorted(two_sided(planes).tolist()) == [False, True, True]


@pytest.mark.parametrize("seed", range(6))
def test_turning_on_circles_meets_every_arc_and_every_event(seed):
    """Against fine angles: the heaviest arc, and the events with every hyperplane's best side."""
    rng = RNG(seed)
    Z = rng.standard_normal((6, 3))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    bases = np.linalg.qr(rng.standard_normal((4, 3, 2)))[0]
    if seed % 2:  # a hyperplane that holds the whole circle, and two passed at once
        Z[1] = np.cross(bases[0, :, 0], bases[0, :, 1])
        Z[2] = Z[3] + 0.5 * Z[1]
        Z[2] /= np.linalg.norm(Z[2])
    plus, minus = rng.standard_normal(6), rng.standard_normal(6)
    if seed % 2:  # these two are worth most together, where the circle passes both
        plus[2:4], minus[2:4] = 10.0, 9.0
    best = np.maximum(np.maximum(plus, minus), plus + minus)
    circles = Circles(Z, bases)
    angle = np.linspace(0, 2 * np.pi, 20_001)
    for v, arc in enumerate(circles.best_arcs(plus, minus)):
        h = np.outer(np.cos(angle), bases[v, :, 0]) + np.outer(np.sin(angle), bases[v, :, 1])
        seen = h @ Z.T
        flat = np.abs(seen).max(axis=0) < 1e-9
        weigh = (seen[:, ~flat] > 0) @ plus[~flat] + (seen[:, ~flat] < 0) @ minus[~flat]
        own = Z[~flat] @ arc
        assert (own > 0) @ plus[~flat] + (own < 0) @ minus[~flat] == pytest.approx(weigh.max())
        values, events = circles.heaviest(plus, minus, best)
        assert values[v].max() >= weigh.max() + best[flat].sum() - 1e-12
        for half in range(2):
            at = 2 * v + half
            ray = circles.rays(*(index[at : at + 1] for index in events))[0]
            tied = np.abs(Z @ ray) <= 1e-9
            expected = best[tied].sum() + (Z @ ray > 0)[~tied] @ plus[~tied]
            expected += (Z @ ray < 0)[~tied] @ minus[~tied]
            assert tied.any()
            assert values[v, half] == pytest.approx(expected)
    if seed % 2:
        assert (np.abs(Z[2:4] @ circles.rays(*(i[:1] for i in events))[0]) <= 1e-9).all()


def test_the_middle_of_a_cell_has_no_slope_and_keeps_its_sides():
    """The gradient of Σ log s zᵀw − n/2 ‖w‖² is zero along the face, at length one."""
    rng = RNG(1)
    Z = rng.standard_normal((6, 3))
    gate = rng.standard_normal(3)
    sides = np.sign(Z @ gate)
    w = middle(Z, sides, gate)
    np.testing.assert_array_equal(np.sign(Z @ w), sides)
    assert np.linalg.norm(w) == pytest.approx(1.0)
    np.testing.assert_allclose((Z / (Z @ w)[:, None]).sum(axis=0), 6 * w, atol=1e-4)
    face = sides.copy()
    face[0] = 0.0
    on = gate - Z[0] * (Z[0] @ gate) / (Z[0] @ Z[0])
    face[1:] = np.sign(Z[1:] @ on)
    w = middle(Z, face, on)
    assert abs(Z[0] @ w) <= 1e-12
    np.testing.assert_array_equal(np.sign(Z[1:] @ w), face[1:])
    slope = (Z[1:] / (Z[1:] @ w)[:, None]).sum(axis=0) - 5 * w
    along = slope - Z[0] * (Z[0] @ slope) / (Z[0] @ Z[0])
    np.testing.assert_allclose(along, 0.0, atol=1e-4)


def walked(tree, X, V, signs):
    """Return the outputs of one unit by recursion, and the masks, nodes from the top down."""
    m, first = tree.branching, np.cumsum([0, *tree.widths])
    masks = np.zeros((sum(tree.widths), len(X)), dtype=bool)

    def node(level, k):
        if level == len(tree.widths) - 1:
            before = X @ V[k]
        else:
            below = range(m * k, m * k + m)
            before = sum(signs[first[level + 1] + c - 1] * node(level + 1, c) for c in below)
        masks[first[level] + k] = before > 0
        return np.maximum(before, 0.0)

    return node(0, 0), masks


@pytest.mark.parametrize(("depth", "branching"), [(3, 1), (3, 2), (4, 2), (3, 3)])
def test_maps_and_masks_of_trees_are_those_of_networks_walked_by_hand(depth, branching):
    tree, rng = Tree(depth, branching), RNG(2)
    X = np.vstack([rng.standard_normal((4, 2)), np.zeros((1, 2))])
    assert tree.leaves == branching ** (depth - 2)
    V = rng.standard_normal((12, tree.leaves, 2))
    signs = rng.choice([-1.0, 1.0], (12, tree.edges))
    masks = tree.masks(X, V, signs)
    maps, rows = tree.maps(X, masks, signs)
    alive = 0
    for unit in range(12):
        out, expected = walked(tree, X, V[unit], signs[unit])
        flat = V[unit].ravel()
        np.testing.assert_allclose(maps[unit] @ flat, out, atol=1e-12)
        assert (rows[unit] @ flat >= -1e-12).all()
        alive += out.any()
        decided = ~np.isclose(walked_sizes(tree, X, V[unit], signs[unit]), 0.0)
        np.testing.assert_array_equal(masks[unit][decided], expected[decided])
    assert alive
    weights = rng.standard_normal((2, tree.edges))
    for one, found in zip(weights, tree.paths(weights), strict=True):
        for leaf in range(tree.leaves):
            product, k = 1.0, leaf
            for level in reversed(range(1, len(tree.widths))):
                product *= one[sum(tree.widths[:level]) + k - 1]
                k //= branching
            assert found[leaf] == pytest.approx(product)


def walked_sizes(tree, X, V, signs):
    """Return what reaches every node before its ReLU."""
    m, first = tree.branching, np.cumsum([0, *tree.widths])
    found = np.zeros((sum(tree.widths), len(X)))
    for level in reversed(range(len(tree.widths))):
        for k in range(tree.widths[level]):
            at = first[level] + k
            if level == len(tree.widths) - 1:
                found[at] = X @ V[k]
                continue
            for c in range(m * k, m * k + m):
                below = np.maximum(found[first[level + 1] + c], 0.0)
                found[at] += signs[first[level + 1] + c - 1] * below
    return found


@pytest.mark.parametrize(("depth", "branching"), [(3, 2), (4, 2), (3, 3)])
def test_whatever_is_in_the_cone_of_a_tree_puts_out_what_its_maps_say(depth, branching):
    """Rows that are left out must be implied by the others: units beside one, near and far."""
    tree, rng = Tree(depth, branching), RNG(3)
    X = rng.standard_normal((3, 2))
    held, left = 0, 0
    for _ in range(40):
        V = rng.standard_normal((1, tree.leaves, 2))
        signs = rng.choice([-1.0, 1.0], (1, tree.edges))
        maps, rows = tree.maps(X, tree.masks(X, V, signs), signs)
        for size in (0.3, 1.0, 3.0):
            for step in rng.standard_normal((8, *V.shape[1:])):
                other = V[0] + size * step
                if (rows[0] @ other.ravel() >= 0).all():
                    out, _ = walked(tree, X, other, signs[0])
                    np.testing.assert_allclose(maps[0] @ other.ravel(), out, atol=1e-12)
                    held += 1
                else:
                    left += 1
    assert held > 20 and left > 20
    for sign in (1.0, -1.0):  # one sign of all children decides the top: no row is needed
        signs = np.full((1, tree.edges), sign)
        V = np.abs(rng.standard_normal((1, tree.leaves, 2)))
        rows = tree.maps(np.abs(X), tree.masks(np.abs(X), V, signs), signs)[1]
        assert not rows[0, :3].any()
        assert rows[0, -3:].any(axis=1).all()


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_dense_blocks_is_charged_whatever_the_multipliers_are(seed):
    """Blocks of one number, in rational arithmetic: rows of both signs that nearly cancel."""
    rng = RNG(seed)
    G, n, q = 6, 9, 8
    matrices, rows = rng.standard_normal((G, n, 1)), rng.standard_normal((G, q, 1))
    atoms = DenseAtoms(matrices, {"number": np.arange(G)}, np.full(n, 10.0))
    program = GroupProgram.of(
        losses.get("squared"),
        np.ones(n),
        0.3,
        atoms,
        Parts(1, 1),
        DenseCones(rows),
        np.ones((n, 0)),
    )
    nu, lam = rng.standard_normal(n), 1e4 * rng.random((G, q))
    lam[:, -1] = np.maximum(
        -(lam[:, :-1, None] * rows[:, :-1]).sum(axis=(1, 2)) / rows[:, -1, 0], 0
    )
    found = groups.bounds_by(program, nu, program.atoms.adjoint(nu), lam)
    for g in range(G):
        rest = Fraction(0)
        for weights, column in ((nu, matrices[g, :, 0]), (lam[g], rows[g, :, 0])):
            for a, b in zip(weights.tolist(), column.tolist(), strict=True):
                rest += Fraction(a) * Fraction(b)
        assert abs(rest) <= Fraction(float(found[g]))
        assert found[g] <= float(abs(rest)) + 1e-8
