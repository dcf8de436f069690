"""The security rules S1 to S25: each with the tests that show it, and what they cannot show.

A test is named `file::what it shows`, as in tests/faults.py.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.test_fault_catalogue import functions_of


class Rule(NamedTuple):
    """One rule."""

    what: str
    tests: tuple[str, ...]
    limit: str
    """What is not shown, and why; empty if nothing is left open."""


def rule(what: str, *tests: str, limit: str = "") -> Rule:
    """Write one row."""
    return Rule(what, tests, limit)


OUR_CODE = "security_code::our_code_keeps_the_rule"
RULES = {
    1: rule(
        "no shell",
        OUR_CODE,
        "security_code::the_rule_finds_what_it_forbids",
        "security_recipes::a_hostile_value_runs_nothing_and_is_told",
        "security_recipes::a_hostile_recipe_in_a_run_directory_starts_nothing_but_an_error",
    ),
    2: rule(
        "no language that runs code is read",
        OUR_CODE,
        "security_code::a_package_to_import_is_never_named_by_data",
    ),
    3: rule(
        "a recipe is data",
        "security_recipes::any_value_under_any_key_is_read_or_refused",
        "security_recipes::any_text_is_read_or_refused",
        "security_recipes::a_recipe_made_to_break_the_reader_is_refused",
        "security_recipes::an_unknown_key_is_a_mistake",
        "security_recipes::a_value_of_another_type_is_not_converted",
        "security_recipes::a_file_without_end_is_not_read_as_a_recipe",
    ),
    4: rule(
        "paths",
        "security_recipes::a_path_that_may_be_mistaken_is_refused",
        "security_recipes::a_path_that_people_use_is_taken",
        "security_recipes::a_recipe_names_nothing_that_is_written",
        "security_recipes::a_run_directory_stays_under_the_run_root_whatever_the_name",
        "security_recipes::our_writes_never_go_through_a_symbolic_link",
    ),
    5: rule(
        "inputs outside the recipe's folder",
        "security_recipes::data_in_a_closed_place_is_refused",
        "security_recipes::a_model_in_a_closed_place_is_refused",
        "security_recipes::a_model_in_a_cache_is_taken",
        "security_recipes::data_elsewhere_is_refused_where_nobody_can_be_asked",
        "security_recipes::data_that_a_person_named_is_not_asked_about",
        "security_recipes::data_in_the_folder_one_works_in_is_not_asked_about",
        "security_recipes::a_person_is_asked_once",
        "security_recipes::a_damaged_record_of_answers_only_asks_again",
        "security_recipes::a_link_to_a_cache_is_called_what_the_link_is_called",
        "security_recipes::a_link_opens_nothing_else",
        "security_recipes::the_scratch_places_of_batch_jobs_are_asked_about",
        "security_recipes::a_recipe_saved_under_another_home_is_only_asked_about",
    ),
    6: rule(
        "no code of a model",
        OUR_CODE,
        "security_code::every_load_of_transformers_is_one_that_the_rule_knows",
        "security_models::a_repository_with_code_is_refused_and_named",
        "security_models::an_adapter_in_a_model_folder_is_refused",
    ),
    7: rule(
        "configurations are judged before a library reads them",
        "security_models::a_configuration_that_could_run_code_is_refused",
        "security_models::the_files_beside_the_configuration_are_held_to_the_same",
        "security_models::what_real_models_say_is_taken",
    ),
    8: rule(
        "safetensors only",
        OUR_CODE,
        "security_models::the_canary_would_fire",
        "security_models::pickles_alone_are_refused_and_never_loaded",
        "security_models::pickles_beside_safetensors_are_ignored_and_told",
        "security_models::loading_a_model_touches_no_pickle_beside_it",
    ),
    9: rule(
        "only our own checkpoints are resumed from",
        "security_models::a_tampered_checkpoint_is_not_resumed_from",
        "security_models::a_foreign_checkpoint_is_not_resumed_from",
        "security_models::a_file_that_was_put_into_a_checkpoint_spoils_it",
        "resume::of_a_checkpoint_that_another_user_wrote_only_the_weights_are_taken",
        "resume::foreign_weights_train_on_with_a_new_optimizer_and_no_pickle_of_theirs",
        limit="a whole run directory of a stranger that one copied oneself counts as one's own: "
        "its optimizer.pt is then loaded by torch >= 2.10 with weights_only=True",
    ),
    10: rule(
        "floors of versions",
        "installation::a_package_with_known_holes_is_refused",
        "installation::a_package_at_its_floor_above_it_or_not_there_passes",
        "installation::the_floors_are_what_the_project_asks_for",
        "installation::old_packages_stop_a_run_before_anything_is_read",
    ),
    11: rule(
        "data sets are rows",
        OUR_CODE,
        "security_models::a_data_set_is_rows_and_never_a_program",
    ),
    12: rule(
        "bombs for parsers",
        "security_models::files_made_to_fill_the_memory_are_refused_within_two_gigabytes",
        "security_models::a_pipe_in_place_of_a_configuration_is_not_waited_for",
        "security_models::a_header_that_lies_about_its_length_is_refused",
        "json_rows::record_above_the_limit",
    ),
    13: rule(
        "chat templates",
        "security_models::a_hostile_chat_template_is_refused",
        "security_models::an_ordinary_or_merely_mistaken_template_passes",
        "security_models::our_sandbox_renders_as_that_of_transformers",
        "security_models::templates_are_found_wherever_a_library_looks",
        limit="a template that waits for one certain row to loop passes the trial; the sandbox "
        "still holds it, and a worker that stands still is told as stalled",
    ),
    14: rule(
        "inputs are pinned",
        "security_processes::what_was_trained_from_is_pinned_by_hash",
        "replay::other_inputs_are_refused_unless_meant",
        limit="recipes name local folders and training fetches nothing, so the files' hashes are "
        "pinned and no commit; a branch that moves cannot change them",
    ),
    15: rule(
        "tokens",
        "security_processes::what_looks_like_a_token_is_masked",
        "security_processes::the_values_of_secret_variables_are_masked",
        "security_processes::an_error_never_holds_a_token",
        "security_processes::no_secret_reaches_the_worker_s_environment",
        "security_processes::no_secret_is_in_any_file_of_the_run_or_in_its_processes",
        "security_recipes::a_token_in_a_recipe_is_refused",
    ),
    16: rule(
        "files are private, their owner is looked at",
        "security_processes::a_run_is_private_and_holds_no_pickle_that_is_of_no_use",
        "control::requests_in_a_directory_that_others_can_write_do_not_count",
        "control::a_link_in_place_of_a_request_is_passed_over",
        "control::a_linked_control_directory_is_not_read",
        "control::a_request_of_another_user_is_passed_over",
        "control::run_directories_are_private",
    ),
    17: rule(
        "nothing is written to a shared temporary place",
        OUR_CODE,
        "security_recipes::our_writes_never_go_through_a_symbolic_link",
        "durable::writing_through_a_symbolic_link_is_refused",
    ),
    18: rule(
        "no listening sockets",
        OUR_CODE,
        "launch::a_run_listens_on_no_port",
        "security_processes::training_needs_no_network",
        "worker_command::several_devices_are_started_by_torchrun",
        limit="several processes on one machine meet on a free port of localhost: torchrun's own "
        "rendezvous, for which it has no other transport",
    ),
    19: rule(
        "the screen",
        OUR_CODE,
        "terminal::clean_lets_nothing_through",
        "sessions::escape_codes_of_data_never_reach_the_terminal",
        "sessions::hostile_text_breaks_no_widget_and_leaves_no_control_code",
        "app::escape_codes_in_names_do_not_reach_the_screen",
        "security_screen::what_commands_print_does_nothing_to_a_terminal",
        "security_screen::what_a_run_left_behind_does_nothing_to_a_terminal",
        "security_screen::json_for_scripts_stays_json_and_harmless",
    ),
    20: rule(
        "reports",
        "security_processes::a_report_in_markdown_holds_no_markup_of_strangers",
        limit="there is no report in HTML or CSV",
    ),
    21: rule(
        "signals and deletions reach only what is ours",
        "identity::a_pid_that_belongs_to_somebody_else_is_not_signalled",
        "identity::a_pid_from_a_file_is_no_licence",
        "identity::no_signal_goes_to_a_pid_that_a_file_named",
        "launch::a_recycled_pid_in_proc_json_is_never_signalled",
        "durable::removing_a_tree_does_not_follow_links",
        "durable::removing_outside_of_the_root_is_refused",
    ),
    22: rule(
        "nothing is uploaded",
        OUR_CODE,
        limit="there is no upload at all, so there is nothing to ask and no list of files to show",
    ),
    23: rule(
        "telemetry is off",
        OUR_CODE,
        "security_processes::telemetry_is_off_and_no_token_is_looked_for",
        "security_processes::training_needs_no_network",
    ),
    24: rule(
        "supply chain",
        "installation::every_dependency_is_pinned_for_development_and_ci",
        limit="pip-audit needs a service of vulnerabilities that CI cannot reach, and torch comes "
        "from another index for each kind of machine, so versions are locked and hashes are not",
    ),
    25: rule(
        "quarantine",
        "security_processes::the_quarantine_has_limits_few_rights_and_no_secrets",
        "security_processes::whatever_the_quarantined_child_does_is_an_answer",
        "driver_faults::a_package_that_raises_crashes_or_hangs_is_found_out_in_a_child",
        limit="configurations, headers and rows are read in the process itself: our own parsers "
        "with limits, which S12 tries within 2 GB",
    ),
}


def test_every_rule_has_one_row():
    """Numbers 1 to 25; no two rows are called the same."""
    assert list(RULES) == list(range(1, 26))
    assert len({row.what for row in RULES.values()}) == 25


@pytest.mark.parametrize("number", RULES)
def test_a_rule_is_shown_by_tests_that_exist(number):
    """At least one each."""
    named = [test.partition("::") for test in RULES[number].tests]

    assert named
    assert [] == [
        f"{file}::{name}" for file, _, name in named if f"test_{name}" not in functions_of(file)
    ]
