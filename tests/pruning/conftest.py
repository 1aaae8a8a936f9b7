"""In the tests of the core, implicit promotion of ranks or of dtypes is an error.

optax promotes dtypes itself. The tests in `OPTAX_PROMOTES` are exempt, by name, for its sake.
"""

import jax
import pytest

ADAM = 'the bias correction of Adam raises a float to its count, an int32'
INJECTED = 'inject_hyperparams: a float32 decay is raised to the count of Adam, an int32'
NOISE = 'add_noise raises its int32 count to a float'
RATE = 'a learning rate scales whatever dtype the updates have'
ACCUMULATED = 'MultiSteps computes with its int32 count and float32'
APPLIED = 'apply_updates adds updates to weights of another dtype'
OPTAX_PROMOTES = {
  'test_composes_with[chain]': ADAM,
  'test_composes_with[named_chain]': ADAM,
  'test_composes_with[apply_if_finite]': ADAM,
  'test_composes_with[multi_steps]': ADAM,
  'test_groups_by_partition_with_raw_gradients': ADAM,
  'test_inside_multi_steps_the_wrapped_chain_sees_whole_gradients': ACCUMULATED,
  'test_pruned_weights_land_on_zero_in_mixed_precision[float32-bfloat16]': APPLIED,
  'test_pruned_weights_land_on_zero_in_mixed_precision[bfloat16-float32]': APPLIED,
  'test_a_link_that_is_not_last_is_found_by_name': ADAM,
  'test_state_round_trips_and_the_run_goes_on_bit_identically': ADAM,
  'test_any_pytree[scanned]': RATE,
  'test_linen_and_nnx': ADAM,
  'test_hold_zeros_under_any_optimizer': ADAM,
  'test_masks_of_a_state_without_types_are_refused[plain]': ADAM,
  'test_masks_of_a_state_without_types_are_refused[leaves]': ADAM,
  'test_masks_of_a_state_without_types_are_refused[<lambda>]': ADAM,
  'test_steps_of_adamw_are_those_of_float64[soft_threshold]': ADAM,
  'test_steps_of_adamw_are_those_of_float64[reweighted]': ADAM,
  'test_steps_of_adamw_are_those_of_float64[l1_penalty]': ADAM,
  'test_steps_of_adamw_are_those_of_float64[l2_penalty]': ADAM,
  'test_only_a_penalty_in_the_loss_enters_the_moments': ADAM,
  'test_zeros_are_exact_with_any_other_link[bf16]': ADAM,
  'test_zeros_are_exact_with_any_other_link[accumulated]': ADAM,
  'test_zeros_are_exact_with_any_other_link[masked]': ADAM,
  'test_zeros_are_exact_with_any_other_link[partition]': ADAM,
  'test_zeros_are_exact_with_any_other_link[vmap]': ADAM,
  'test_zeros_are_exact_with_any_other_link[sgd in float32 on bf16]': APPLIED,
  'test_a_run_ends_at_the_exact_sparsity_and_fine_tuning_holds_it': ADAM,
  'test_zeros_and_counts_are_exact_at_every_step[adamw]': ADAM,
  'test_zeros_and_counts_are_exact_at_every_step[muon]': ADAM,
  'test_zeros_and_counts_are_exact_at_every_step[apply_if_finite]': ADAM,
  'test_zeros_and_counts_are_exact_at_every_step[inject_hyperparams]': INJECTED,
  'test_zeros_and_counts_are_exact_at_every_step[multi_steps]': ADAM,
  'test_zeros_and_counts_are_exact_at_every_step[partition]': ADAM,
  'test_a_weight_that_comes_back_is_trained_as_a_new_one[multi_steps]': ADAM,
  'test_a_weight_that_comes_back_is_trained_as_a_new_one[partition]': ADAM,
  'test_latent_weights_keep_their_moments': ADAM,
  'test_nnx_optimizer': ADAM,
  'test_the_next_move_of_masks_notices_a_link_that_is_not_last[adam after it]': ADAM,
  'test_the_next_move_of_masks_notices_a_link_that_is_not_last[noise after it]': NOISE,
  'test_params_that_change_after_the_update_are_noticed_and_masked_ones_are_not': ADAM,
  'test_a_train_state_is_told_how_to_pass_the_gradient': ADAM,
  # All members, since the function that trains them in `test_start.py` uses Adam.
  'test_zeros_count_and_rank_below_all_others_for_every_criterion': ADAM,
  'test_zeros_count_under_every_allocation': ADAM,
  'test_units_that_are_gone_count_under_every_structure': ADAM,
  'test_drop_and_regrow_starts_from_the_masks_and_moves_them': ADAM,
  'test_a_schedule_that_falls_brings_them_back_last_unless_they_are_held': ADAM,
  'test_masks_are_accepted_as_the_start': ADAM,
  'test_who_pays_says_what_is_pruned_already': ADAM,
  'test_wrappers_of_optax_pass_the_change_on': ACCUMULATED,
}


@pytest.fixture(autouse=True)
def strict(request):
  names = {request.node.name, getattr(request.node, 'originalname', None)}
  dtypes = 'strict' if names.isdisjoint(OPTAX_PROMOTES) else 'standard'
  with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion(dtypes):
    yield


@pytest.fixture
def optax_promotes():
  return OPTAX_PROMOTES
