"""What went wrong, or would have, on the first try on a real account: each row with the tests that prove its mend."""

import ast

import pytest
from support.project_tree import PROJECT

CLOUD_INIT, FIRST_BOOT = "tests/unit/salt/test_cloud_init.py", "tests/unit/salt/test_first_boot.py"
ANSWERS, DOCTOR = "tests/faults/test_real_answers.py", "tests/faults/test_doctor.py"
PHASES, HABITS = "tests/unit/salt/test_driver_phases.py", "tests/unit/baker/test_habits.py"
LAUNCH = "tests/contract/test_bake_launch.py"
POLICY, LOGINS = "tests/unit/baker/test_policy_reference.py", "tests/faults/test_logins.py"
CAPACITY, RARE = "tests/faults/test_capacity.py", "tests/faults/test_doctor_answers.py"
ROWS = {
    "1 a launch fails for KMS, a limit or a snapshot": [
        f"{ANSWERS}::test_a_launch_that_fails_for_the_client_is_told_and_not_tried_again",
        "tests/unit/baker/test_state_reason.py::test_the_cause_decides",
        f"{DOCTOR}::test_a_fault_turns_its_row_red_and_no_other",
    ],
    "2 the GPU is silently unused": ["tests/machine/test_gpu.py"],
    "3 needrestart restarts the bake": [
        f"{CLOUD_INIT}::test_nothing_that_is_upgraded_may_restart_the_work",
        f"{CLOUD_INIT}::test_a_sigterm_says_what_it_was",
    ],
    "4 apt's locks at first boot": [
        f"{FIRST_BOOT}::test_every_lock_of_apt_is_waited_for_and_its_holder_told",
        f"{FIRST_BOOT}::test_an_unattended_upgrade_between_two_packages_is_waited_for",
        f"{FIRST_BOOT}::test_who_never_ends_is_told_after_a_bounded_time",
    ],
    "5 credentials that end before the bake": [
        "tests/unit/baker/test_user_data.py::test_the_user_data_stays_within_the_limit_for_any_session_token",
        f"{DOCTOR}::test_credentials_must_live_as_long_as_a_machine",
        f"{ANSWERS}::test_credentials_that_end_in_the_middle_leave_a_bake_to_resume",
        f"{ANSWERS}::test_a_machine_whose_report_cannot_arrive_is_heard_by_its_console",
        f"{PHASES}::test_a_success_is_held_on_to_until_it_can_be_delivered",
        "tests/contract/test_renewed_credentials.py::test_addresses_are_signed_again_when_the_credentials_are_renewed",
    ],
    "6 a subnet with no way out": [
        f"{DOCTOR}::test_a_fault_turns_its_row_red_and_no_other",
        f"{RARE}::test_a_default_route_may_lead_elsewhere_and_come_in_two_halves",
        f"{RARE}::test_a_group_may_let_everything_out_in_other_words",
        f"{CLOUD_INIT}::test_a_machine_without_a_way_out_says_so_on_its_console",
        f"{ANSWERS}::test_what_a_machine_says_before_it_ends_is_told",
    ],
    "7 a quota of 0": [f"{DOCTOR}::test_the_command_prints_rows_and_mends_and_json"],
    "8 launch": [
        f"{ANSWERS}::test_a_launch_goes_where_there_is_room",
        f"{LAUNCH}::test_what_serves_may_be_of_the_spot_market",
        f"{CAPACITY}::test_a_place_that_lacks_something_else_is_passed_over",
        f"{CAPACITY}::test_a_groups_machine_that_ec2_ends_at_once_is_told_in_awss_words",
        f"{LAUNCH}::test_what_is_launched_says_from_where_it_can_be_reached",
        f"{LAUNCH}::test_a_group_is_in_the_configured_zones_that_offer_its_type",
        f"{LAUNCH}::test_a_group_of_two_markets_has_its_least_machines_on_demand_and_takes_other_markets_later",
        f"{POLICY}::test_every_action_and_resource_exists",
        f"{POLICY}::test_dependent_actions_are_allowed_too",
        "tests/contract/test_bake_policy.py::test_a_key_of_ones_own_may_be_used_by_ec2_and_nobody_else",
    ],
    "9 a volume is read lazily": [
        f"{LAUNCH}::test_a_volume_may_be_initialized_at_a_rate",
        f"{LAUNCH}::test_the_limits_of_a_first_start_follow_the_published_images_disk",
        f"{HABITS}::test_a_machine_has_a_role_and_a_rate_only_where_they_are_named",
    ],
    "10 a Python that the locks do not serve": [
        f"{CLOUD_INIT}::test_a_python_that_is_too_old_is_told_before_anything_else",
        f"{CLOUD_INIT}::test_a_driver_that_dies_is_told",
        f"{RARE}::test_a_source_image_that_the_locks_do_not_serve_fails",
        f"{DOCTOR}::test_a_fault_turns_its_row_red_and_no_other",
    ],
    "11 the default configuration as it is": [
        "tests/faults/test_plan.py::test_a_clip_in_another_language_than_the_model_listens_for_is_refused",
        "tests/faults/test_plan.py::test_the_pillar_verifies_in_the_language_that_its_model_listens_for",
    ],
    "12 a bucket of another region": [f"{ANSWERS}::test_a_bucket_of_another_region_is_refused"],
    "13 dry runs drop AWS's words": [f"{ANSWERS}::test_a_dry_run_counts_and_its_words_are_told"],
    "14 no room on the disk": [
        f"{FIRST_BOOT}::test_room_is_looked_for_before_anything_is_installed",
        "tests/unit/salt/test_states.py::test_toolkits_that_are_not_wanted_go_and_nothing_else",
    ],
    "15 an image that takes long": [f"{ANSWERS}::test_an_image_that_takes_long_is_left_to_resume"],
    "16 an agent without a role": [f"{HABITS}::test_a_machine_has_a_role_and_a_rate_only_where_they_are_named"],
    "17 console after the end, macOS, downloads that break off": [
        f"{ANSWERS}::test_the_console_is_read_where_ec2_has_no_latest_output",
        "tests/unit/baker/test_computers.py::test_the_launcher_loads_on_macos",
        f"{FIRST_BOOT}::test_a_download_that_breaks_off_is_tried_again",
        "tests/unit/salt/test_seal.py::test_what_writes_is_stopped_before_anything_is_removed",
    ],
    "an account that is not ready, terms, quotas, an organization's policy": [
        f"{ANSWERS}::test_an_account_that_may_not_launch_is_told_so_once_and_what_to_do",
        f"{DOCTOR}::test_keys_or_an_account_that_are_refused_are_one_row",
    ],
    "Ctrl-C": ["tests/faults/test_aws_faults.py::test_ctrl_c_at_any_call_is_one_line_and_leaves_nothing"],
    "habits: profiles, roles, SSO, MFA": [
        f"{HABITS}::test_credentials_of_a_profile_are_renewed_while_a_bake_runs",
        f"{LOGINS}::test_a_profile_that_cannot_be_used_is_one_line",
    ],
    "habits: macOS and WSL as the launcher's computer": [
        "tests/unit/baker/test_computers.py::test_the_launcher_loads_on_macos",
        f"{ANSWERS}::test_keys_that_a_region_does_not_take_are_one_line_at_once",
        "tests/unit/baker/test_payload.py::test_windows_line_endings_are_refused_and_recordings_are_not_text",
        "tests/unit/baker/test_payload.py::test_where_files_have_no_modes_git_says_which_are_programs",
        "tests/contract/test_localcloud_daemon.py::test_its_state_is_refused_where_files_have_no_modes",
    ],
    "habits: AWS_ENDPOINT_URL": [f"{HABITS}::test_an_endpoint_of_the_environment_has_the_bucket_in_its_path"],
    "habits: a bucket with dots": [f"{HABITS}::test_a_bucket_is_addressed_so_that_its_certificate_fits"],
    "habits: KMS, TLS and headers of a bucket": [
        f"{DOCTOR}::test_a_fault_turns_its_row_red_and_no_other",
        f"{RARE}::test_what_is_refused_is_a_row",
    ],
    "other systems at first boot": [
        "tests/machine/test_bases.py::test_a_bake_on_it_verifies_and_changes_nothing_twice"
    ],
    "doctor --machine on the local cloud": ["tests/machine/test_doctor.py::test_a_real_machine_looks_and_is_gone"],
    "habits: regions to opt in to": [
        f"{DOCTOR}::test_a_fault_turns_its_row_red_and_no_other",
        f"{ANSWERS}::test_keys_that_a_region_does_not_take_are_one_line_at_once",
        f"{ANSWERS}::test_a_region_to_publish_to_that_is_not_enabled_is_named",
    ],
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_test(row: str) -> None:
    for name in ROWS[row]:
        file, _, function = name.partition("::")
        tree = ast.parse((PROJECT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, name
