"""The command line: each command has what the configuration that it works with is made of."""

import argparse

import pytest
from baker import cli

COMMANDS = next(each for each in cli.parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
BAKING = [name for name, command in COMMANDS.items() if command.get_default("model") is not None]


def test_these_commands_work_with_the_configuration_of_a_bake() -> None:
    placed = {name for name, command in COMMANDS.items() if "--cloud" in command._option_string_actions}
    assert set(BAKING) == placed - {"plan"} | {"rehearse"}  # one has its own, the other no choice of clouds


@pytest.mark.parametrize("name", BAKING)
def test_each_command_that_bakes_knows_the_model_and_its_language(name: str) -> None:
    wanted = [action for action in COMMANDS[name]._actions if not action.option_strings and action.nargs in (None, "+")]
    options = cli.parse([name, *("x" for _ in wanted)])
    assert (options.model, options.listen_for) == ("", "en")
