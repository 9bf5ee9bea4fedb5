"""What recipes are tried within a budget."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.finetuning.choosing.budget import (
    FILL,
    FINALISTS,
    MANY,
    SOME,
    Cost,
    last_rung,
    needed,
    plan_for,
)
from pipeline.finetuning.choosing.recipes import FIRST, RECIPES

COST = Cost(train=800, select=200, learners=1000, step=0.01, score=0.003, batch_size=32)


def test_every_recipe_is_named_among_the_first():
    assert sorted(FIRST) == sorted(RECIPES) and len(RECIPES) <= 6


def test_with_time_enough_all_recipes_are_tried_and_the_best_longer():
    plan = plan_for(COST, 1e6)
    assert plan.recipes == tuple(RECIPES)
    assert (plan.short, plan.long) == (5, 15)  # 25 steps an epoch


def test_few_images_get_steps_and_not_epochs():
    few = replace(COST, train=100, select=25, learners=125)
    assert plan_for(few, 1e6).short == 30  # 4 steps an epoch


def test_with_little_time_fewer_are_tried_and_the_bold_first():
    assert plan_for(COST, 1.0).recipes == ("bold",) and plan_for(COST, 1.0).long == 1


@given(st.floats(1.0, 1e5), st.floats(1e-4, 1.0), st.integers(20, 50_000))
def test_a_plan_fits_its_budget_or_is_the_least_there_is(budget, step, train):
    cost = Cost(train, train // 4, train, step, step / 3, 32)
    plan = plan_for(cost, budget)
    assert plan.seconds <= FILL * budget or (len(plan.recipes) == 1 and plan.long >= 1)
    assert plan.long >= plan.short


@given(st.floats(1.0, 1e4), st.floats(1.0, 3.0))
def test_more_time_never_tries_fewer_recipes(budget, times):
    assert len(plan_for(COST, times * budget).recipes) >= len(plan_for(COST, budget).recipes)


def test_what_is_left_counts_the_last_rung_and_the_decision():
    plan = plan_for(COST, 1e6)
    assert needed(COST, plan) == plan.seconds
    after, deciding = needed(COST, plan, len(plan.recipes)), COST.deciding(plan.long, plan.decides)
    assert after == FINALISTS * COST.seconds(plan.long) + deciding > deciding > 0
    assert needed(COST, plan, len(plan.recipes), FINALISTS) == deciding


@given(st.floats(0.0, 5000.0), st.floats(1e-4, 0.1))
def test_the_last_rung_is_as_long_as_what_is_left_allows(seconds, step):
    plan, cost = plan_for(COST, 1e6), replace(COST, step=step, score=step / 3)

    def takes(epochs):
        return FINALISTS * cost.seconds(epochs) + cost.deciding(epochs, plan.decides)

    long = last_rung(plan, cost, seconds)
    assert long == 0 or plan.short < long <= plan.long
    assert long == 0 or takes(long) <= seconds
    assert long == plan.long or takes(max(long, plan.short) + 1) > seconds


def test_what_decides_follows_from_the_images_that_choose_and_the_time():
    assert plan_for(COST, 1e6).decides == "folds"
    assert plan_for(replace(COST, select=MANY), 1e6).decides == "half"
    folds = COST.seconds(2 * 5) * 2 + COST.deciding(2 * 5, "folds")
    assert plan_for(COST, 0.9 * folds / FILL).decides == "select"  # 200 are too few for halves
    more = replace(COST, select=SOME)
    less = 0.9 * (more.seconds(10) * 2 + more.deciding(10, "folds")) / FILL
    assert plan_for(more, less).decides == "half" and len(plan_for(more, less).recipes) == 2
    assert plan_for(more, 1.0).decides == "select" and len(plan_for(more, 1.0).recipes) == 1


@given(st.floats(1.0, 1e5), st.integers(10, 2000))
def test_images_that_have_chosen_something_never_decide(seconds, select):
    plan = plan_for(replace(COST, select=select), seconds, used=True)
    assert plan.decides == ("folds" if select < SOME else plan.decides) != "select"
