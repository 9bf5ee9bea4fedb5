from pipeline.verbs.tune_recipe import TuneRecipe


def test_a_head_that_starts_random_learns_ten_times_as_fast_as_the_trunk():
    assert TuneRecipe(start="random").head_factor == 10
    assert TuneRecipe().head_factor == 2
    assert TuneRecipe(from_scratch=True).head_factor == 1
    assert TuneRecipe(head_lr_factor=3.0, start="random").head_factor == 3
