"""Mixtures of neurons that are zero everywhere, against their values at many inputs."""

from __future__ import annotations

import numpy as np
import pytest

from landscape.optimal_set.functions import vanish

INPUTS = 3.0 * np.random.default_rng(0).standard_normal((4000, 2))
E1, E2 = np.eye(2)
THIRD = np.array([-0.6, 0.8])


def outputs(null, blocks, gates, shifts, inputs):
    """Return Σ_k t_k (1[z·g_k ≥ 0] z·u_k + σ_k) at many inputs, one column a mixture."""
    p = gates.shape[1]
    z = INPUTS if p == inputs else np.column_stack([INPUTS, np.ones(len(INPUTS))])
    return ((z @ gates.T >= 0) * (z @ blocks.T) + shifts) @ null


def checked(t, blocks, gates=None, shifts=None, inputs=2):
    """Return what `vanish` says, which must be what the values say."""
    null = np.asarray(t, dtype=np.float64)
    null = null.reshape(len(null), -1)
    null = null / np.linalg.norm(null, axis=0)
    blocks = np.asarray(blocks, dtype=np.float64)
    gates = blocks if gates is None else np.asarray(gates, dtype=np.float64)
    shifts = np.zeros(len(blocks)) if shifts is None else np.asarray(shifts, dtype=np.float64)
    found = vanish(null, blocks, gates, shifts, inputs, 1e-9)
    zero = np.abs(outputs(null, blocks, gates, shifts, inputs)).max() <= 1e-9
    assert found == zero
    return found


def test_a_neuron_minus_its_mirror_is_linear_and_linear_functions_add_up():
    """(z·g)_+ − (−z·g)_+ = z·g, so three of them cancel where their directions do."""
    units = [E1, E2, -(E1 + E2)]
    blocks = [side * u for u in units for side in (1.0, -1.0)]
    assert checked([1, -1, 1, -1, 1, -1], blocks)
    assert not checked([1, -1, 1, -1, 1, 1], blocks)  # the last two make an absolute value
    assert not checked([1, -1, 1, -1, 2, -2], blocks)
    blocks[4] = 1.001 * blocks[4]
    assert not checked([1, -1, 1, -1, 1, -1], blocks)


def test_neurons_of_one_direction_are_one_function_whatever_their_size():
    assert checked([2, -1], [E1, 2 * E1])
    assert not checked([1, -1], [E1, 2 * E1])
    assert not checked([1, 1], [E1, -E1])
    assert checked([1, 1], [E1, -E1], gates=[E2, E2])  # gates switch, blocks cancel
    assert checked([1, 1], [E1, -E1], gates=[E2, 7.0 * E2])
    assert not checked([1, 1], [E1, -E1], gates=[E2, -E2])
    assert not checked([1, 1], [E1, -E1], gates=[E2, THIRD])


def test_what_jumps_by_nothing_can_still_be_a_linear_function():
    """Gates of both sides with one block: open or closed somewhere, z·u everywhere."""
    gates = [E1, -E1, E2, -E2]
    assert not checked([1, 1], [THIRD, THIRD], gates=gates[:2])
    assert checked([1, 1, -1, -1], [THIRD] * 4, gates=gates)
    assert not checked([1, 1, -1, -1], [THIRD, THIRD, THIRD, E2], gates=gates)


@pytest.mark.parametrize("level", [1.0, -1.0])
def test_gates_that_no_input_switches_count_whole_or_not_at_all(level):
    """With a bias, (0, b) is on everywhere for b > 0 and nowhere for b < 0."""
    gate = np.array([[0.0, 0.0, level]])
    block = np.array([[0.3, -0.2, 0.5]])
    assert checked([1], block, gate) == (level < 0)
    both = np.vstack([block, block])
    assert checked([1, -1], both, np.vstack([gate, 3 * gate]))
    opposite = np.vstack([gate, -gate])
    assert not checked([1, 1], both, opposite)
    switch = np.array([[1.0, 0.0, 0.2], [-1.0, 0.0, -0.2], [0.0, 0.0, 1.0]])
    assert checked([1, 1, -1], np.vstack([block] * 3), switch)  # the halves make up the whole
    assert not checked([1, 1, 1], np.vstack([block] * 3), switch)


def test_constants_make_up_for_the_constants_of_neurons():
    flat = np.array([[0.0, 0.0, 1.0]])
    assert checked([1], flat, flat, shifts=[-1.0])
    assert not checked([1], flat, flat, shifts=[1.0])
    assert not checked([1], -flat, -flat, shifts=[-1.0])
    shifted = np.array([[1.0, 0.0, 0.5], [-1.0, 0.0, -0.5]])  # z·g itself: x_1 + ½
    assert not checked([1, -1], shifted, shifts=[-0.5, 0.0])  # x_1 is left
    line = np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    mixture = [1, -1, 1, -1]
    assert checked(mixture, np.vstack([shifted, line]), shifts=[-0.5, 0.0, 0.0, 0.0])
    assert not checked(mixture, np.vstack([shifted, line]), shifts=[0.5, 0.0, 0.0, 0.0])


def test_one_mixture_of_several_that_does_not_vanish_is_enough():
    blocks = [E1, 2 * E1, E2, -E2]
    zero, other = np.array([2.0, -1, 0, 0]), np.array([0, 0, 1.0, 1.0])
    assert checked(np.column_stack([zero, zero]), blocks)
    assert not checked(np.column_stack([zero, other]), blocks)
    assert not checked(np.column_stack([other, zero]), blocks)


def test_what_counts_as_zero_is_relative_to_the_largest_block():
    for size, tolerance, wanted in ((1.0, 1e-3, False), (1.0, 1e-1, True), (1e6, 1e-8, True)):
        blocks = np.array([size * E1, size * E1 + 1e-2 * E2])
        null = np.array([[1.0], [-1.0]]) / 2**0.5
        gates = np.array([E1, E1])
        assert vanish(null, blocks, gates, np.zeros(2), 2, tolerance) == wanted


@pytest.mark.parametrize("mixtures", [0, 1, 3])
def test_no_neurons_and_no_mixtures_are_zero(mixtures):
    empty = np.zeros((0, 2))
    assert vanish(np.zeros((0, mixtures)), empty, empty, np.zeros(0), 2, 1e-9)
    assert vanish(np.zeros((1, 0)), E1[None], E1[None], np.zeros(1), 2, 1e-9)
