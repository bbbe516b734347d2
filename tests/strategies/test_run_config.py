"""The shield's settings in Flower's run configuration: read as Flower reads them, or refused."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from flwr.common.config import flatten_dict, parse_config_args
from flwr.serverapp.strategy import FedAvg

from fl_shield.errors import ConfigurationError
from fl_shield.judge.policy import Action
from fl_shield.strategies import MetaShield, options_from_run_config
from tests.strategies._rounds import NormDetector, NormInspector, make_model, make_probes

LISTED = """
num-server-rounds = 3

[shield]
policy = "downweight"
threshold = 2
evidence-threshold = 3.5
max-drop-share = 0.3
trusted-nodes = "7, 18446744073709551615"
banned-nodes = "9"
clip-survivors = true
min-clients = 4
audit-log = "/var/lib/audit.jsonl"
detector = "/srv/detector"
device = "cpu"
seed = 5
"""


def test_every_kind_of_value_as_flower_hands_it_over() -> None:
    assert options_from_run_config(flatten_dict(tomllib.loads(LISTED))) == {
        "policy": "downweight",
        "threshold": 2,
        "evidence_threshold": 3.5,
        "max_drop_share": 0.3,
        "trusted_nodes": (7, 2**64 - 1),
        "banned_nodes": (9,),
        "clip_survivors": True,
        "min_clients": 4,
        "audit_log": "/var/lib/audit.jsonl",
        "detector": "/srv/detector",
        "device": "cpu",
        "seed": 5,
    }


def test_overrides_of_the_command_line_are_read() -> None:
    given = parse_config_args(['shield.policy="monitor" shield.max-drop-share=0 lr=0.1'])
    assert options_from_run_config(given) == {"policy": "monitor", "max_drop_share": 0}


def test_the_options_make_a_shield(tmp_path: Path) -> None:
    options = options_from_run_config(
        {
            "shield.policy": "monitor",
            "shield.threshold": 4.5,
            "shield.trusted-nodes": "3,5",
            "shield.audit-log": str(tmp_path / "audit.jsonl"),
        }
    )
    strategy = MetaShield(
        FedAvg(), make_model(), make_probes(), inspector=NormInspector(), detector=NormDetector(),
        **options,
    )  # fmt: skip
    policy = strategy._shield_core.judge.policy
    assert policy.action is Action.MONITOR
    assert policy.threshold == 4.5
    assert policy.trusted == {3, 5}
    assert (tmp_path / "audit.jsonl").exists()


def test_a_single_node_id_may_be_a_number() -> None:
    assert options_from_run_config({"shield.banned-nodes": 7}) == {"banned_nodes": (7,)}


def test_keys_of_the_user_are_left_alone_and_empty_ones_decide_nothing() -> None:
    config = {"policy": "mine", "shields": 1, "shield.threshold": "", "shield.trusted-nodes": ""}
    assert options_from_run_config(config) == {}


def test_every_option_has_a_key_or_is_said_to_be_an_object() -> None:
    """Whatever MetaShield is given in future is configurable, or refused for a good reason."""
    parameters = inspect.signature(MetaShield).parameters.values()
    options = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert len(options) > 15
    objects = []
    for option in options:
        key = "shield." + option.replace("_", "-")
        try:
            assert options_from_run_config({key: ""}) == {}
        except ConfigurationError:
            objects.append((key, option))
    assert ("shield.inspector", "inspector") in objects
    for key, option in objects:
        with pytest.raises(ConfigurationError, match=f"Pass {option}=… to MetaShield in Python"):
            options_from_run_config({key: 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shield.polcy", "drop", "Unknown key of the run configuration 'shield.polcy'. "
         "Did you mean 'shield.policy'? Known: shield.audit-log, "),
        ("shield.max_drop_share", 0.3, "Did you mean 'shield.max-drop-share'?"),
        ("shield.", 1, "Unknown key of the run configuration 'shield.'."),
        ("shield.threshold", "2.0", "Expected `shield.threshold` to be a number, got '2.0'. "
         "Write the value without quotes"),
        ("shield.threshold", True, "`shield.threshold` to be a number, got True"),
        ("shield.seed", 1.5, "`shield.seed` to be a whole number, got 1.5"),
        ("shield.seed", False, "`shield.seed` to be a whole number, got False"),
        ("shield.clip-survivors", 1, "`shield.clip-survivors` to be true or false, got 1"),
        ("shield.policy", 3, "`shield.policy` to be a text in quotes, got 3"),
        ("shield.audit-log", True, "`shield.audit-log` to be a text in quotes, got True"),
        ("shield.trusted-nodes", "7 8", "to be node ids in quotes, separated by commas, got '7 8'"),
        ("shield.trusted-nodes", "7,-8", "to be node ids in quotes, separated by commas"),
        ("shield.banned-nodes", 7.0, "`shield.banned-nodes` to be node ids in quotes"),
        ("shield.banned-nodes", True, "`shield.banned-nodes` to be node ids in quotes"),
    ],
)  # fmt: skip
def test_wrong_keys_and_types_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        options_from_run_config({"num-server-rounds": 3, key: value})


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        options_from_run_config({"shield.polcy": "drop", "shield.seed": "1", "shield.device": 0})
    assert len(str(raised.value).splitlines()) == 3


def test_ranges_are_checked_by_the_shield() -> None:
    options = options_from_run_config({"shield.max-drop-share": 1.5})
    with pytest.raises(ConfigurationError, match=r"`max_drop_share` to be at least 0 and below 1"):
        MetaShield(FedAvg(), make_model(), make_probes(), inspector=NormInspector(), **options)
