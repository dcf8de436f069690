"""The decision tree alone, on facts that are made up."""

from __future__ import annotations

import itertools

import pytest

from advisor.choice import tree
from advisor.choice.answers import Answer, Answers
from profiles.facts import Origin

LEAVES = [value for value in vars(tree).values() if isinstance(value, tree.Leaf)]


def user(**answers):
    """Answers with these answers given by the user."""
    return Answers(**{name: Answer(value, Origin.USER) for name, value in answers.items()})


def facts(*, full=False, lora=True, **more):
    """Evidence with these answers."""
    return tree.Evidence(
        full_fits=full, full_words="of full", lora_fits=lora, lora_words="of LoRA", **more
    )


ANSWERS = (
    {},
    {"critical": True},
    {"value": False},
    {"complexity": "high"},
    {"complexity": "low"},
    {"quality": False},
    {"quality": False, "task": "classify"},
)


@pytest.mark.parametrize("leaf", [*LEAVES, *map(tree.native, (tree.FULL, tree.LORA_HIGH))])
def test_every_leaf_is_reached(leaf):
    """No answer of the tree is dead."""
    yes_no = (True, False)
    reached = {
        tree.walk(
            user(**answers),
            facts(full=full, lora=lora, light_fits=light, has_experts=mixture, num_tasks=tasks),
        )[1]
        for full, lora, light, mixture in itertools.product(yes_no, repeat=4)
        for tasks in (1, 3)
        for answers in ANSWERS
    }

    assert leaf in reached


DOCUMENTED = [
    (facts(full=True), {"critical": True}, tree.FULL),
    (facts(full=True), {}, tree.LORA_VALUE),
    (facts(full=True), {"value": False}, tree.FULL),
    (facts(lora=False), {}, tree.QLORA),
    (facts(lora=False), {"quality": False}, tree.PROMPT),
    (facts(lora=False), {"quality": False, "task": "classify"}, tree.BITFIT),
    (facts(), {"complexity": "high"}, tree.LORA_HIGH),
    (facts(), {"complexity": "medium"}, tree.LORA_MEDIUM),
    (facts(), {"complexity": "low"}, tree.ADAPTER),
    (facts(), {"critical": True}, tree.LORA_MEDIUM),
    (facts(light_fits=True), {"critical": True}, tree.LIGHT_FULL),
    (facts(light_fits=True), {}, tree.LORA_MEDIUM),
    (facts(full=True, num_tasks=2), {}, tree.UPCYCLED),
    (facts(full=True, num_tasks=2, can_upcycle=False), {}, tree.LORA_EXPERTS),
    (facts(num_tasks=2), {}, tree.LORA_EXPERTS),
    (facts(num_tasks=2, has_experts=True), {}, tree.native(tree.LORA_MEDIUM)),
    (facts(has_experts=True, lora=False), {}, tree.native(tree.QLORA)),
]


@pytest.mark.parametrize(("found", "answers", "leaf"), DOCUMENTED)
def test_the_tree_is_the_documents(found, answers, leaf):
    """METHODS §1, branch by branch."""
    assert tree.walk(user(**answers), found)[1] == leaf


def test_every_step_says_where_its_answer_came_from():
    """Measured, predicted by the estimate, the user's word, or our default."""
    path, _ = tree.walk(user(critical=False), facts(full=True))

    assert [step.origin for step in path] == [
        Origin.MEASURED,
        Origin.DEFAULT,
        Origin.PREDICTED,
        Origin.USER,
        Origin.DEFAULT,
    ]
    assert all(step.evidence and step.question.endswith("?") for step in path)


def test_a_native_mixture_adapts_its_experts_for_complex_tasks_only():
    """The router stays frozen; experts are optional."""
    assert tree.native(tree.LORA_HIGH).methods == ("lora_on_experts", "lora")
    assert tree.native(tree.LORA_MEDIUM).methods == tree.LORA_MEDIUM.methods


def test_the_documents_ranges_of_ranks_are_kept():
    """Value 32 to 64, complex 16 to 32, medium 8 to 16."""
    leaves = (tree.LORA_VALUE, tree.LORA_HIGH, tree.LORA_MEDIUM)
    assert [leaf.ranks for leaf in leaves] == [(32, 64), (16, 32), (8, 16)]
