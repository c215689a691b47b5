"""`solve`: the convex program over given patterns, or over all of them by column generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from landscape import arrangements, dictionary
from landscape.arrangements import Arrangements
from landscape.bounds import EXACT, SEARCH, AllPatterns, Bound, bound_over, lower_bound_at
from landscape.certificate import Certificate, judge
from landscape.errors import BadInput, NotConverged, at_least_zero, unknown, whole
from landscape.network import read
from landscape.solvers import generation, last_two, listed, reference, restricted, units
from landscape.solvers.solution import Solution, without_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import ConvexPoint
    from landscape.dictionary import Units
    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

METHODS = ("fast", "reference")


def solve(
    problem: Problem,
    patterns: str | Arrangements | NDArray[np.bool_] | Units = "all",
    *,
    start: Any = None,
    tolerance: float = 1e-7,
    limit: int = 100_000,
    rounds: int = 200,
    seed: int = 0,
    method: str = "fast",
    device: str = "cpu",
    throw: bool = True,
) -> Solution:
    """Solve the convex program of a problem and certify the outcome.

    Args:
        problem: the training problem.
        patterns: "all" for the global optimum over every activation pattern, by column
            generation; or the patterns of a restricted program, as `Arrangements` or a boolean
            array (P, n); of architectures made of units, units by name.
        start: what column generation begins with: networks (`train`'s runs, one network or a list
            of them), or the solution of a nearby problem; the latter also warm-starts a program
            over given patterns.
        tolerance: relative gap at which the outcome counts as solved.
        limit: for "all", how many cones branch and bound may visit to prove that no pattern was
            missed (scope "all patterns, exact" if that is enough, else "all patterns, local
            search" with a relaxed bound); for architectures whose patterns must be enumerated,
            how many patterns there may be.
        rounds: most rounds of column generation; what they leave open, the certificate says.
        seed: of the random searches.
        method: "fast" (interior point and Newton; the reference takes over where they do not
            apply, and ``status`` says so), or "reference" (cvxpy and Clarabel, primal and dual
            solved apart) for given patterns.
        device: where the fast solver computes: "cpu", "cuda".
        throw: raise if the gap stays above the tolerance; otherwise ``status`` says so.

    Returns:
        The certified solution.

    Raises:
        TooManyPatterns: if patterns must be enumerated and are more than ``limit``.
        NotConverged: if the gap stays above ``tolerance``.
        BadInput: for patterns that do not fit the data, or an unknown method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    at_least_zero("tolerance", tolerance)
    for name, value, least in (("limit", limit, 0), ("rounds", rounds, 1), ("seed", seed, 0)):
        whole(name, value, least)
    _check_device(device)
    _check_start(problem, start)
    if problem.architecture.layered:
        if not (isinstance(patterns, str) and patterns == "all"):
            raise BadInput(
                f"patterns: no convex program is known for architecture "
                f"{problem.architecture.label}; pass start= trained networks and leave them out."
            )
        options = {"rounds": rounds, "seed": seed, "device": device, "method": method}
        return last_two.solve_deep(
            problem, _networks(start), solve, limit, tolerance, throw, **options
        )
    if not isinstance(patterns, str):
        program = problem.architecture.program(problem, _given(problem, patterns))
        if method == "reference":
            optimum = reference.solve_primal(program, throw)
            value, nu = reference.solve_dual(program, throw)
            bound = bound_over(program, nu)
            history: tuple[dict[str, Any], ...] = ({"primal": optimum.value, "dual": value},)
        else:
            aim = min(tolerance / 2, 1e-9)
            warm = start.on(program) if isinstance(start, Solution) else None
            optimum = restricted.minimise(program, aim, throw=False, device=device, start=warm)
            bound = bound_over(program, optimum.nu, optimum.multipliers)
            history = optimum.history
        return _finish(problem, program, optimum, bound, history, tolerance, throw)
    if patterns != "all":
        raise BadInput(f"patterns is {patterns!r}: it must be 'all', Arrangements or an array.")
    if method == "reference":
        raise BadInput("method is 'reference': it solves given patterns only; pass patterns=.")
    source = AllPatterns(problem, limit)
    if source.oracle is not None:
        first = _first_units(problem, start, seed)
        optimum, solved, bound, history = units.generate(problem, source, first, tolerance, rounds)
        if history[-1]["climbs"]:  # columns came from a search: what it left open is another matter
            reached = history[-1]["attained"] / problem.beta
            return _unproved(
                problem, solved, optimum, reached, history, tolerance, throw,
                relaxed=bound.value, climbs=history[-1]["climbs"],
            )  # fmt: skip
        return _finish(problem, solved, optimum, bound, history, tolerance, throw)
    if not problem.architecture.searched:
        program = source.program
        first = starting_patterns(problem, start, seed)
        optimum, solved, history = listed.generate(problem, program, first, tolerance, throw)
        bound = bound_over(program, optimum.nu, scope=EXACT)
        return _finish(problem, solved, optimum, bound, history, tolerance, throw)
    return _search_all(problem, source, start, tolerance, rounds, seed, device, throw)


def _first_units(problem: Problem, start: Any, seed: int) -> Units:
    """Return units of the given networks and those that the architecture begins with."""
    architecture = problem.architecture
    # Where not all neurons are in the dictionary, those of a trained network need not be.
    members = isinstance(start, Solution) or not architecture.within_neurons
    parts = [
        architecture.own(problem, read(problem, network)).units
        for network in _networks(start if members else None)
    ]
    return dictionary.join(*parts, architecture.first(problem, seed))


def _check_device(device: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"device is {device!r}: it must be one that torch can use here, such as 'cpu' "
            f"({str(error).splitlines()[0]})."
        ) from None


def _check_start(problem: Problem, start: Any) -> None:
    """Refuse a start that is neither networks nor a solution for these data."""
    if isinstance(start, Solution):
        other = start.problem
        if other.architecture != problem.architecture or other.design.shape != problem.design.shape:
            raise BadInput(
                f"start is a solution of {other}: it must have the architecture and the shape of "
                f"{problem}."
            )
        return
    if start is not None and not isinstance(start, torch.nn.Module):
        networks = getattr(start, "networks", start)
        if not isinstance(networks, Iterable) or isinstance(networks, str):
            raise BadInput(
                f"start is {start!r}: it must be a network, a list of networks, `train`'s runs or "
                "a solution."
            )
    some = problem.architecture.initial(problem, 1, [0]).get("hidden")
    for network in _networks(start):
        if problem.architecture.oracle(problem, 0) is not None:
            read(problem, network)
            continue
        hidden = problem.architecture.read(network).get("hidden")
        if hidden is not None and some is not None and hidden.shape[-1] != some.shape[-1]:
            raise BadInput(
                f"start has a network of {hidden.shape[-1]} inputs (bias included): the problem "
                f"has {some.shape[-1]}."
            )


def _search_all(
    problem: Problem,
    source: AllPatterns,
    start: Any,
    tolerance: float,
    rounds: int,
    seed: int,
    device: str,
    throw: bool,
) -> Solution:
    """Generate columns by search; prove, as far as the limit allows, that none is missing."""
    proofs: list[Bound] = []

    def everything(nu: Floats, target: float) -> tuple[Floats, Floats]:
        """Return neurons that price above the target, if an exact price of all patterns has any."""
        if source.enumerated:
            every = source.program
            proofs.append(source(nu))
            new, _ = listed.improving_blocks(every, nu, target / problem.beta - 1)
            return every.patterns.gates[every.atoms.index[new]], every.atoms.signs[new]
        bound, found = source.searched(nu, target)
        proofs.append(bound)
        if found is None or found.attained <= target:
            return np.zeros((0, problem.design.shape[1])), np.zeros(0)
        return found.direction[None], np.array([float(found.sign)])

    warm = None
    if isinstance(start, Solution) and start.active:
        first = generation.Columns.of_program(start.point.program, start.point.theta)
        warm = start.point.theta, start.point.constant
    else:
        first = generation.Columns.of(problem, *_first_neurons(problem, start, seed))
    optimum, solved, entry, history = generation.generate(
        problem, first, tolerance, seed, everything, warm, rounds, device, throw
    )
    if not proofs:  # the rounds ran out: what is returned gets its lower bound all the same
        everything(optimum.nu, problem.beta)
    if proofs[-1].scope == EXACT:
        return _finish(problem, solved, optimum, proofs[-1], history, tolerance, throw)
    ratio, relaxed = entry["price_ratio"], max(proof.value for proof in proofs)
    return _unproved(
        problem, solved, optimum, ratio, history, tolerance, throw,
        relaxed=relaxed, climbs=entry["climbs"],
    )  # fmt: skip


def _unproved(
    problem: Problem,
    program: Program,
    optimum: Optimum,
    ratio: float,
    history: tuple[dict[str, Any], ...],
    tolerance: float,
    throw: bool,
    **searched: Any,
) -> Solution:
    """Return what a search left: its dual is what a bound would be if it had missed nothing."""
    reached = lower_bound_at(program, optimum.nu, max(ratio, 1.0))
    bound = Bound(*reached, ratio, SEARCH, arrangements.count(*_size(problem)))
    return _finish(problem, program, optimum, bound, history, tolerance, throw, **searched)


def _size(problem: Problem) -> tuple[int, int]:
    return len(problem.design), int(np.linalg.matrix_rank(problem.design))


def _first_neurons(problem: Problem, start: Any, seed: int) -> tuple[Floats, Floats]:
    """Return gates and output signs of the given networks' neurons, or of a few random ones."""
    gates = arrangements.sample(problem.design, problem.design.shape[1], seed=seed).gates
    found = [(np.vstack([gates, gates]), np.repeat([1.0, -1.0], len(gates)))]
    for network in _networks(start):
        point = problem.architecture.lift(problem, read(problem, network))
        sizes = point.program.gauge.value(point.theta)
        kept = sizes > 1e-3 * sizes.max(initial=0.0)  # smaller ones were on their way out
        found.append((point.theta[kept], point.program.atoms.signs[kept]))
    return np.vstack([g for g, _ in found]), np.concatenate([s for _, s in found])


def _networks(start: Any) -> list[torch.nn.Module]:
    if start is None:
        return []
    if isinstance(start, Solution):
        return [start.network()]
    networks = getattr(start, "networks", None)
    if networks is not None:
        return list(networks)
    return [start] if isinstance(start, torch.nn.Module) else list(start)


def starting_patterns(problem: Problem, start: Any, seed: int) -> Arrangements:
    """Return the patterns of the given networks and a few random ones."""
    patterns = arrangements.sample(problem.design, 10 * problem.design.shape[1], seed=seed)
    for network in _networks(start):
        gates = problem.architecture.gates(read(problem, network))
        patterns = patterns.union(arrangements.of(gates, problem.design))
    return patterns


def _given(problem: Problem, patterns: Any) -> Arrangements | Units:
    """Return what a user gives as patterns or units, refusing what the architecture cannot take."""
    units = problem.architecture.oracle(problem, 0) is not None
    if isinstance(patterns, Mapping) and not units:
        raise BadInput(
            f"patterns has names: architecture {problem.architecture.label} takes patterns, "
            "`Arrangements` or a boolean array (P, n)."
        )
    masks = isinstance(patterns, np.ndarray) and patterns.ndim == 2 and patterns.dtype.kind == "b"
    # Some architectures of units take patterns as well, and make their units of them.
    if units and not (masks or isinstance(patterns, Arrangements)):
        return problem.architecture.checked_units(problem, patterns)
    return as_arrangements(problem, cast("Arrangements", patterns))


def as_arrangements(problem: Problem, patterns: Arrangements | NDArray[np.bool_]) -> Arrangements:
    """Return given patterns as `Arrangements`, refusing arrays of another kind or shape."""
    if isinstance(patterns, Arrangements):
        count = patterns.n
    else:
        patterns = np.asarray(patterns)
        if patterns.dtype != bool or patterns.ndim != 2:
            raise BadInput(
                f"patterns is an array of {patterns.dtype} with shape {patterns.shape}: it must be "
                "boolean with shape (P, n)."
            )
        count = patterns.shape[1]
    if count != len(problem.design):
        rows = len(problem.design)
        raise BadInput(f"patterns are over {count} samples, the problem has {rows}.")
    if len(patterns) == 0:
        raise BadInput("patterns is empty: there must be at least one.")
    if isinstance(patterns, Arrangements):
        return patterns
    return Arrangements.from_bool(patterns, np.zeros((len(patterns), problem.design.shape[1])))


def _finish(
    problem: Problem,
    program: Program,
    optimum: Optimum,
    bound: Bound,
    history: tuple[dict[str, Any], ...],
    tolerance: float,
    throw: bool,
    **searched: Any,
) -> Solution:
    """Clean, map to a network, certify, and say how it ended."""
    point: ConvexPoint = without_noise(problem, program, optimum)
    violation = point.program.violation(point.theta)
    network = problem.architecture.lower(point)
    certificate: Certificate = judge(problem, network, [bound], violation=violation)
    certificate = replace(certificate, **searched)
    status = optimum.status
    if not certificate.relative_gap <= tolerance:
        status = (
            f"The certified relative gap is {certificate.relative_gap:.1e}, above the tolerance "
            f"{tolerance:g}. {status}"
        )
        if throw:
            raise NotConverged(status + " Raise the tolerance, or pass throw=False to see it.")
    return Solution(problem, point, certificate, certificate.nu, status, history)
