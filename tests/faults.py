"""The fault catalogue: each of its 95 rows with the tests of our answer, or why there is none.

A test is named `file::what it shows`: `cli::an_interrupt` is `test_an_interrupt` of
tests/test_cli.py. tests/test_fault_catalogue.py walks this table.
"""

from __future__ import annotations

from typing import NamedTuple

from profiles.errors import ExitCode


class Fault(NamedTuple):
    """One way to fail."""

    what: str
    tests: tuple[str, ...]
    code: ExitCode | None
    """That the command or the run ends with; None where nothing ends, or with several."""
    reason: str
    """Why nothing can be tested here."""


def fault(what: str, *tests: str, code: ExitCode | None = None, reason: str = "") -> Fault:
    """Write one row."""
    return Fault(what, tests, code, reason)


FAULTS = {
    1: fault(
        "SSH drops",
        "training::a_closed_terminal_does_not_end_a_run",
        "sessions::a_reconnect_tells_what_happened_meanwhile",
    ),
    2: fault(
        "SSH drops under torchrun and nohup",
        "sessions::torchrun_as_we_start_it_survives_the_end_of_its_terminal",
    ),
    3: fault("UI killed", "kills::killed_readers_are_nothing_to_a_run"),
    4: fault(
        "UI exception",
        "sessions::a_screen_that_breaks_saves_its_traceback_and_restores_the_terminal",
        code=ExitCode.INTERNAL,
    ),
    5: fault(
        "UI's output closed",
        "launch::the_worker_holds_no_terminal_and_no_pipe",
        "cli::a_reader_that_leaves_early_is_no_error",
    ),
    6: fault(
        "frozen client or very slow link",
        "sessions::a_frozen_terminal_stops_neither_the_run_nor_the_end_of_the_app",
        "pace::a_slow_link_is_known_by_its_late_answers",
        "terminal::the_environment_for_textual",
    ),
    7: fault(
        "SIGHUP ignored and terminal gone",
        "app::a_terminal_that_goes_away_ends_the_app",
        "sessions::a_frozen_terminal_stops_neither_the_run_nor_the_end_of_the_app",
    ),
    8: fault(
        "no terminal",
        "sessions::without_a_terminal_the_app_is_refused_and_the_way_is_named",
        "sessions::the_status_of_a_run_needs_no_terminal",
        "terminal::plain_without_a_real_terminal",
        code=ExitCode.USAGE,
    ),
    9: fault(
        "tiny terminal, resize storm",
        "sessions::two_hundred_sizes_break_no_screen",
        "sessions::a_terminal_without_room_ends_by_a_key",
        "app::a_small_terminal_is_told_the_size_it_needs",
    ),
    10: fault(
        "locale without UTF-8",
        "sessions::terminals_that_know_no_utf8_are_sent_ascii",
        "sessions::commands_print_in_an_ascii_environment",
        "app::ascii_means_ascii",
    ),
    11: fault(
        "markup or escape codes in data",
        "sessions::hostile_text_breaks_no_widget_and_leaves_no_control_code",
        "sessions::escape_codes_of_data_never_reach_the_terminal",
        "terminal::clean_lets_nothing_through",
    ),
    12: fault("two UIs attached", "control::twenty_one_stops_from_three_readers_are_one_stop"),
    13: fault(
        "UI of another version",
        "launch::a_run_of_a_newer_version_is_view_only",
        "control::a_run_of_a_newer_version_takes_no_requests",
        code=ExitCode.NEWER_SCHEMA,
    ),
    14: fault(
        "logout kills processes",
        "session_host::whether_logind_kills_is_read_from_busctl",
        "session_host::a_host_that_kills_at_logout_is_told_or_outlived",
    ),
    15: fault(
        "launch inside a Slurm job",
        "session_host::an_allocation_is_named_with_its_end",
        "session_host::a_silent_scheduler_still_gives_a_warning",
    ),
    16: fault(
        "worker killed between steps",
        "supervisor::a_killed_worker_is_told_with_signal_step_and_checkpoint",
        "kills::killed_workers_lose_no_acknowledged_checkpoint",
        "training::a_killed_worker_resumes_to_the_same_losses",
    ),
    17: fault(
        "worker killed while it saves",
        "crashes::a_crash_before_any_operation_loses_nothing",
        "crashes::a_write_torn_by_a_crash_loses_nothing",
        "checkpoints::staging_is_never_taken_for_a_checkpoint",
        "resume::no_sound_checkpoint_is_an_error_of_its_own",
        code=ExitCode.NO_CHECKPOINT,
    ),
    18: fault(
        "supervisor killed",
        "kills::killed_supervisors_leave_their_runs_alone",
        "supervisor::the_death_of_the_supervisor_leaves_the_run_alone",
        "state::a_run_that_lost_its_supervisor_goes_on_and_says_so",
    ),
    19: fault(
        "supervisor and worker killed",
        "supervisor::the_death_of_both_is_told_as_lost",
        "state::a_dead_run_without_an_exit_record_is_lost",
    ),
    20: fault(
        "pid reused",
        "state::a_recycled_pid_is_not_the_worker",
        "identity::a_pid_that_belongs_to_somebody_else_is_not_signalled",
        "launch::a_recycled_pid_in_proc_json_is_never_signalled",
    ),
    21: fault(
        "reboot or power loss",
        "crashes::a_power_loss_takes_nothing_that_was_told",
        "state::another_boot_is_told",
        "mutations::without_this_rule_the_suite_finds_a_violation",
    ),
    22: fault(
        "SIGTERM",
        "training::a_stopped_run_saves_and_can_go_on",
        "faulty_training::a_stop_during_an_evaluation_leaves_it_and_saves",
        "faulty_training::a_request_before_the_first_step_interrupts_what_goes_on",
        code=ExitCode.STOPPED,
    ),
    23: fault(
        "second SIGTERM",
        "faulty_training::during_training_the_first_signal_waits_and_the_second_does_not",
        code=ExitCode.STOPPED,
    ),
    24: fault("ctrl+c in the terminal", "sessions::ctrl_c_leaves_neither_the_app_nor_the_run"),
    25: fault(
        "orphan data loader processes",
        "supervisor::a_blocked_data_loader_process_leaves_with_its_killed_trainer",
        "launch::leftovers_are_named_and_ended_by_stop_now",
        "identity::leftovers_of_another_user_are_not_ours",
    ),
    26: fault(
        "process stuck in the driver",
        "identity::a_process_in_the_driver_is_waited_for_only_so_long",
        "evidence::a_process_stuck_in_the_driver_is_named_in_the_record",
    ),
    27: fault(
        "torchrun's port taken",
        "worker_command::several_devices_are_started_by_torchrun",
        "launch::a_run_listens_on_no_port",
    ),
    28: fault(
        "hang",
        "guard::a_stall_is_ten_medians_and_at_least_five_minutes",
        "guard::a_stall_is_told_once_and_its_end_too",
        "supervisor::a_silent_worker_is_asked_where_it_stands_and_left_alone",
    ),
    29: fault(
        "status cannot be read",
        "state::a_file_that_cannot_be_read_makes_no_run_dead",
        "feed::the_thread_hands_over_and_survives_a_run_that_disappears",
    ),
    30: fault(
        "worker ends with 0 too early",
        "supervisor::a_worker_that_ends_with_zero_too_early_is_stopped_not_finished",
        code=ExitCode.STOPPED,
    ),
    31: fault(
        "disk full while saving",
        "faulty_training::a_full_disk_pauses_the_run_and_it_goes_on_when_there_is_room",
        "faulty_training::a_checkpoint_needs_what_the_last_one_took",
        "crashes::an_error_of_the_disk_loses_nothing",
        code=ExitCode.IO_ERROR,
    ),
    32: fault(
        "disk full for metrics",
        "journal::what_the_disk_refuses_waits_and_is_written_in_order",
        "journal::of_more_than_can_wait_the_oldest_are_dropped_and_counted",
        "state::a_full_disk_is_noticed_without_an_event",
    ),
    33: fault(
        "torch's words for a full disk",
        "faulty_training::a_save_that_fails_for_want_of_room_is_tried_again",
        "faulty_training::a_storage_error_is_no_full_disk",
    ),
    34: fault(
        "quota or inodes used up",
        "faulty_training::a_save_that_fails_for_want_of_room_is_tried_again",
        "launch::a_disk_that_takes_no_file_leaves_nothing_half_started",
        code=ExitCode.IO_ERROR,
    ),
    35: fault(
        "home cannot be written",
        "launch::a_disk_that_takes_no_file_leaves_nothing_half_started",
        code=ExitCode.CANNOT_CREATE,
    ),
    36: fault(
        "network file system",
        "launch::of_twenty_simultaneous_resumes_one_wins",
        "session_host::a_network_file_system_is_told",
    ),
    37: fault(
        "two runs in one directory",
        "launch::twenty_simultaneous_starts_get_twenty_directories",
        "supervisor::only_one_supervisor_gets_a_run",
        code=ExitCode.CANNOT_CREATE,
    ),
    38: fault(
        "fsync fails",
        "crashes::an_error_of_the_disk_loses_nothing",
        "faulty_training::a_storage_error_is_no_full_disk",
        code=ExitCode.IO_ERROR,
    ),
    39: fault("record truncated", "state::cut_records_are_read_as_missing"),
    40: fault(
        "torn or garbage journal line",
        "journal::a_flipped_byte_costs_its_own_record_alone",
        "journal::a_cut_at_any_byte_leaves_all_whole_lines",
        "feed::a_damaged_record_is_counted_and_passed_over",
    ),
    41: fault("leftover staging", "checkpoints::leftover_staging_is_reclaimed"),
    42: fault(
        "best checkpoint gone",
        "checkpoints::the_best_is_found_after_the_run_was_moved",
        "checkpoints::a_best_whose_directory_is_gone_is_none",
    ),
    43: fault(
        "rotation deletes the only good one",
        "checkpoints::rotation_keeps_what_the_rule_says_and_no_more",
        "checkpoints::rotation_never_leaves_fewer_than_two",
        "faulty_training::the_best_checkpoint_is_marked_and_outlives_rotation",
    ),
    44: fault(
        "clock jumps",
        "checkpoints::rotation_goes_by_step_and_not_by_clock",
        "state::a_clock_that_is_set_back_changes_no_state",
        "evidence::lines_of_a_log_are_compared_with_their_own_clock",
    ),
    45: fault(
        "file permissions",
        "durable::what_is_published_is_private_whoever_wrote_it",
        "control::run_directories_are_private",
    ),
    46: fault(
        "endless log",
        "supervisor::a_chatty_worker_cannot_fill_the_disk",
        "evidence::overwritten_progress_bars_are_collapsed",
        "evidence::a_log_over_its_limit_is_cut_and_its_end_kept",
    ),
    47: fault(
        "corrupt JSON line",
        "json_rows::bad_files",
        "cli::bad_data_is_refused_with_place_and_code_and_starts_nothing",
        code=ExitCode.BAD_DATA,
    ),
    48: fault(
        "torn last line",
        "json_rows::growing_file_is_told",
        "json_rows::lines_cut_at_every_byte",
        code=ExitCode.BAD_DATA,
    ),
    49: fault(
        "huge line",
        "data_quality::a_huge_line_is_read_in_bounded_memory_and_told",
        "json_rows::record_above_the_limit",
        "json_rows::memory_stays_flat",
        code=ExitCode.BAD_DATA,
    ),
    50: fault(
        "Latin-1, UTF-16, BOM, NUL",
        "json_rows::bad_files",
        "json_rows::encoding_advice_converts",
        code=ExitCode.BAD_DATA,
    ),
    51: fault("empty file", "json_rows::bad_files", "dataset::all_empty", code=ExitCode.BAD_DATA),
    52: fault(
        "missing key in some rows",
        "data_quality::missing_keys_are_counted",
        "dataset::faults_are_counted_per_kind",
        "formats::row_faults",
        code=ExitCode.BAD_DATA,
    ),
    53: fault(
        "types drift",
        "data_quality::a_key_that_changes_its_type_is_told_with_its_line",
        "formats::row_faults",
        "formats::a_row_in_another_format_is_told_by_its_line",
        code=ExitCode.BAD_DATA,
    ),
    54: fault(
        "wrong format",
        "formats::detect_format_names_the_nearest",
        "formats::wrong_format_is_named",
        code=ExitCode.BAD_DATA,
    ),
    55: fault(
        "nothing to learn from",
        "data_quality::a_length_that_cuts_most_replies_off_refuses_the_file",
        "data_check_command::a_length_that_leaves_nothing_to_learn_is_not_ready",
        code=ExitCode.BAD_DATA,
    ),
    56: fault(
        "no chat template",
        "security_models::a_chat_without_a_template_is_refused_with_the_choices",
        "data_check_command::a_model_without_chat_template_is_told_with_chat_data",
        code=ExitCode.BAD_RECIPE,
    ),
    57: fault("template without an end", "data_quality::replies_that_end_with_no_mark_are_told"),
    58: fault(
        "duplicates, leaks into evaluation",
        "repeats::rows_of_the_evaluation_that_are_trained_on_are_counted",
        "repeats::repeats_are_told_apart",
    ),
    59: fault(
        "data changed since the recipe",
        "replay::a_flipped_byte_of_the_data_is_refused_with_the_table",
        "replay::other_inputs_are_refused_unless_meant",
        code=ExitCode.BAD_DATA,
    ),
    60: fault(
        "data removed during the run", "replay::data_that_is_removed_during_a_run_is_not_missed"
    ),
    61: fault(
        "loss not finite",
        "faulty_training::a_nan_ends_the_run_at_the_step_that_made_it",
        "guard::a_loss_that_is_not_finite_ends_the_run_at_once",
        "faulty_training::weights_that_are_not_finite_are_never_committed",
        code=ExitCode.DIVERGED,
    ),
    62: fault(
        "gradient not finite",
        "guard::a_wild_gradient_ends_the_run_unless_a_scaler_skips_the_step",
        code=ExitCode.DIVERGED,
    ),
    63: fault(
        "loss spike",
        "guard::a_spike_is_seen_after_the_patience_of_four",
        "guard::ordinary_curves_are_no_spikes",
        "faulty_training::a_spike_pins_the_checkpoint_before_it",
        "faulty_training::a_spike_stops_the_run_where_the_recipe_says_so",
        code=ExitCode.LOSS_SPIKE,
    ),
    64: fault(
        "loss exactly zero",
        "guard::a_loss_of_exactly_zero_is_a_fault_when_it_stays",
        "guard::a_gradient_of_zero_is_a_fault_when_it_stays",
        code=ExitCode.DIVERGED,
    ),
    65: fault(
        "out of memory at the first step",
        "oom::out_of_memory_divides_the_batch_and_repeats_no_step",
        "oom::real_messages_are_told_apart",
        code=ExitCode.GPU_OOM,
    ),
    66: fault(
        "out of memory at a long row",
        "oom::out_of_memory_divides_the_batch_and_repeats_no_step",
        "oom::one_row_that_does_not_fit_ends_with_the_cheapest_changes",
        code=ExitCode.GPU_OOM,
    ),
    67: fault(
        "device unusable after out of memory",
        "oom::a_device_that_no_longer_works_asks_for_a_clean_process",
        "supervisor::a_worker_that_asks_for_a_clean_process_gets_one",
        "supervisor::the_third_clean_process_is_not_given",
        code=ExitCode.GPU_OOM,
    ),
    68: fault(
        "out of memory in an evaluation",
        "oom::out_of_memory_in_evaluation_divides_the_evaluation_only",
    ),
    69: fault(
        "host out of memory",
        "evidence::a_memory_kill_of_the_control_group_ends_with_81",
        "evidence::the_kernel_log_tells_a_memory_kill_where_no_group_counts",
        code=ExitCode.HOST_OOM,
    ),
    70: fault(
        "data loader process killed",
        "evidence::a_killed_data_loader_process_is_named",
        "evidence::a_full_shared_memory_is_told_with_its_place",
    ),
    71: fault("resume not equal", "resume::a_resumed_run_has_the_same_weights_bit_for_bit"),
    72: fault(
        "resume with other settings",
        "resume::other_settings_than_the_checkpoints_are_refused_with_both_values",
        code=ExitCode.BAD_RECIPE,
    ),
    73: fault(
        "GPU taken by others",
        "driver_faults::a_gpu_full_of_somebody_else_is_refused_with_who_it_is",
        "driver_faults::others_are_in_the_way_only_of_what_would_fit_without_them",
        "nvml::half_occupied_gpu_names_its_holders",
        "recommend::somebody_else_on_the_gpu_is_named",
        code=ExitCode.DRIVER,
    ),
    74: fault(
        "GPU lost",
        "evidence::an_xid_of_the_hardware_class_ends_with_84",
        "nvml::a_lost_gpu_costs_only_itself",
        code=ExitCode.GPU_LOST,
    ),
    75: fault(
        "container lost its GPU",
        "nvml::a_gpu_that_vanishes_between_two_looks_is_told",
        "nvml::driver_that_does_not_start_is_a_note",
    ),
    76: fault(
        "driver and library differ",
        "driver_faults::a_sick_driver_is_refused_instead_of_training_on_the_cpu",
        "nvml::driver_that_does_not_start_is_a_note",
        code=ExitCode.DRIVER,
    ),
    77: fault(
        "driver too old for torch",
        "driver_faults::a_driver_too_old_for_torch_is_told_with_both_versions",
        "driver_faults::a_driver_runs_every_toolkit_of_its_own_major_version",
        "driver_faults::the_build_of_torch_is_read_without_importing_it",
        code=ExitCode.DRIVER,
    ),
    78: fault(
        "no bf16",
        "recommend::a_card_without_bf16_gets_fp16",
        "nvml::v100_and_t4_have_no_bf16",
        "driver_faults::bf16_on_a_card_without_it_is_refused_with_what_to_set",
        code=ExitCode.DRIVER,
    ),
    79: fault(
        "MIG, ECC, throttling",
        "nvml::mig_slices_stand_for_the_card",
        "nvml::memory_errors_are_told",
        "nvml::nvidia_gpu_with_everything_known",
    ),
    80: fault(
        "driver hangs",
        "nvml::driver_that_hangs_does_not_hang_us",
        "driver_faults::a_sick_driver_is_refused_instead_of_training_on_the_cpu",
    ),
    81: fault(
        "no GPU",
        "driver_faults::a_machine_without_gpu_is_no_fault",
        "recommend::without_a_gpu_the_plan_is_fp32_in_host_memory",
    ),
    82: fault(
        "model path missing",
        "model::missing_folder_offers_near_names",
        "cli::wrong_input_gives_a_clear_error_and_its_exit_code",
        code=ExitCode.NO_INPUT,
    ),
    83: fault(
        "gated, forbidden, private",
        "hub::each_refusal_of_the_hub_has_its_own_words",
        "hub::the_token_is_sent_and_never_told",
        code=ExitCode.REFUSED,
    ),
    84: fault(
        "no network",
        "hub::no_answer_is_told_and_what_was_kept_serves",
        "hub::offline_mode_does_not_try",
        "hub::a_silent_server_is_not_waited_for",
        code=ExitCode.NO_NETWORK,
    ),
    85: fault(
        "hub busy or slow",
        "hub::a_busy_hub_is_asked_again",
        "hub::a_hub_that_wants_much_patience_is_told_with_its_time",
        "hub::a_hub_that_stalls_in_the_middle_of_a_file_is_not_waited_for",
        code=ExitCode.NO_NETWORK,
    ),
    86: fault(
        "truncated weights",
        "model::a_shard_that_is_cut_off_is_named_with_both_sizes",
        "model::torn_weights_are_told",
        "hub::torn_weights_are_told",
        code=ExitCode.BAD_DATA,
    ),
    87: fault(
        "stale lock in the cache",
        reason="no lock of the hub's cache is ever taken: weights come from a local folder, `hf "
        "download` puts them there, and what the hub said is kept by an atomic write",
    ),
    88: fault(
        "recipe of a newer schema",
        "recipe::a_recipe_of_a_newer_schema_is_refused_with_advice",
        code=ExitCode.NEWER_SCHEMA,
    ),
    89: fault(
        "typo in a recipe",
        "recipe::all_mistakes_are_told_at_once",
        "recipe::a_mistake_is_named_with_its_line",
        "cli::a_wrong_recipe_key_is_named_with_its_line",
        code=ExitCode.BAD_RECIPE,
    ),
    90: fault(
        "malicious recipe",
        "security_recipes::data_in_a_closed_place_is_refused",
        "security_recipes::a_hostile_value_runs_nothing_and_is_told",
        "security_recipes::a_run_directory_stays_under_the_run_root_whatever_the_name",
        code=ExitCode.REFUSED,
    ),
    91: fault(
        "pickle weights",
        "security_models::pickles_alone_are_refused_and_never_loaded",
        "security_models::pickles_beside_safetensors_are_ignored_and_told",
        code=ExitCode.REFUSED,
    ),
    92: fault(
        "repository with code",
        "security_models::a_repository_with_code_is_refused_and_named",
        "security_models::a_configuration_that_could_run_code_is_refused",
        code=ExitCode.REFUSED,
    ),
    93: fault(
        "environment drifted",
        "replay::files_and_packages_that_came_or_went_differ",
        "replay::each_difference_is_named_with_both_values",
    ),
    94: fault(
        "package missing or broken",
        "driver_faults::a_package_that_raises_crashes_or_hangs_is_found_out_in_a_child",
        "driver_faults::a_broken_bitsandbytes_is_refused_with_the_pip_line",
        "cli::training_packages_that_are_missing_are_named",
        code=ExitCode.DRIVER,
    ),
    95: fault(
        "logger service down",
        reason="there is no logger service to be down: metrics go to files of the run directory "
        "alone (report_to is none)",
    ),
}
