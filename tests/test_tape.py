"""The rules by which a tape's values live and die, on networks small enough to count by hand."""

from __future__ import annotations

from advisor.cost.flops import last_recomputed
from advisor.graph.play import play
from advisor.tape import Size, Tape, once, per_pair, per_token

X = per_token(8)


def peak(stages):
    """Most bytes a token, where nothing else matters."""
    return max(stage.total.per_token for stage in stages)


def test_sizes_are_linear_in_tokens_and_pairs():
    """Bytes once, by token, and by pair of tokens in a row."""
    size = once(100).plus(per_token(8)).plus(per_pair(2))
    assert size.at(tokens=10, row=5) == 100 + 10 * 8 + 10 * 5 * 2


def test_a_value_dies_after_its_last_use():
    """Three casts in a row never hold more than two of them."""
    tape = Tape(X, 2, needs_grad=True)
    x = tape.entry
    for _ in range(3):
        x = tape.op("cast", (x,), X, 2)
    assert peak(play(tape).forward) == 16


def test_a_saved_value_waits_for_its_backward_pass():
    """What an operation saved is alive at the end, and gone once its gradient is made."""
    tape = Tape(X, 2, needs_grad=True)
    inner = tape.op("first", (tape.entry,), X, 2)
    tape.op("second", (inner,), X, 2, saved=(inner,))
    profile = play(tape)
    assert profile.saved == X
    assert not profile.saves_input
    # Saved value, gradient of the output, gradient of the inner value; then two gradients.
    assert peak(profile.backward) == 24


def test_an_input_that_is_saved_belongs_to_whoever_made_it():
    """The module says that it saves its input and leaves the bytes to its caller."""
    tape = Tape(X, 2, needs_grad=True)
    tape.op("linear", (tape.entry,), X, 2, saved=(tape.entry,))
    profile = play(tape)
    assert profile.saves_input
    assert profile.saved == Size(0, 0, 0)


def test_nothing_is_saved_where_no_gradient_is_needed():
    """A frozen module on a frozen input keeps nothing."""
    tape = Tape(X, 2, needs_grad=False)
    tape.op("linear", (tape.entry,), X, 2, saved=(tape.entry,), kept=once(50))
    assert play(tape).saved == Size(0, 0, 0)


def test_a_trained_weight_brings_gradients_to_life():
    """Its own gradient outlives the pass; from there on inputs need none if nothing before does."""
    tape = Tape(X, 2, needs_grad=False)
    tape.op("linear", (tape.entry,), X, 2, weight_grad=once(64), weight_flops=1)
    profile = play(tape)
    assert profile.weight_grads == once(64)
    assert profile.backward[0].total == once(64).plus(X)


def test_sums_hand_their_gradient_on():
    """Both branches of a residual get one tensor, and the second is added in place."""
    tape = Tape(X, 2, needs_grad=True)
    branch = tape.op("branch", (tape.entry,), X, 2)
    tape.op("add", (tape.entry, branch), X, 2, hands_on=True)
    assert peak(play(tape).backward) == 16


def test_parts_share_one_gradient_of_the_whole():
    """Splitting allocates nothing forward, and the whole once backward."""
    tape = Tape(X, 2, needs_grad=True)
    whole = tape.op("both", (tape.entry,), per_token(32), 2)
    left, right = tape.part(whole, 8), tape.part(whole, 8)
    tape.op("mul", (left, right), per_token(16), 2, saved=(left, right))
    profile = play(tape)
    assert profile.saved == per_token(32)
    assert peak(profile.forward) == 48


def test_a_module_holds_its_input_until_it_returns():
    """Python frames keep what torch would free."""
    tape = Tape(X, 2, needs_grad=True)
    first = tape.op("first", (tape.entry,), X, 2)
    second = tape.op("second", (first,), X, 2)
    tape.op("third", (second,), X, 2)
    without = peak(play(tape).forward)
    tape.hold(first)
    assert peak(play(tape).forward) == without + 8


def test_recomputation_stops_at_the_last_operation_that_saves():
    """What follows it is not run again."""
    tape = Tape(X, 2, needs_grad=True)
    inner = tape.op("small", (tape.entry,), X, 2)
    inner = tape.op("saving", (inner,), X, 2, saved=(inner,))
    tape.op("large", (inner,), per_token(800), 2)
    profile = play(tape)
    assert peak(profile.forward) > 800
    assert peak(profile.recomputed) == 16


def test_only_stages_that_can_win_are_kept():
    """One that another exceeds in every part goes; more tokens or more pairs keep it."""
    tape = Tape(X, 2, needs_grad=True)
    scores = tape.op("scores", (tape.entry,), per_pair(4), 2)
    out = tape.op("out", (scores,), per_token(80), 2)
    tape.op("small", (out,), per_token(2), 2)
    names = {stage.name for stage in play(tape).forward}
    assert names == {"out", "small"}


def test_a_layer_that_keeps_nothing_is_not_run_again():
    """Nor one that no gradient passes."""
    kept = Tape(X, 2, needs_grad=True)
    kept.op("shift", (kept.entry,), X, 2)
    frozen = Tape(X, 2, needs_grad=False)
    frozen.op("linear", (frozen.entry,), X, 2, flops=1)

    assert last_recomputed(kept.ops) == last_recomputed(frozen.ops) == -1
