"""What README and docs tell people to write, run, set and open is really there.

Python blocks are executed, commands are held against the Makefile and the configuration, settings
and options against `conf/`, links against the files.
"""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from omegaconf import OmegaConf
from torch import nn

from benchmarks.marked_table import read_table
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import Detector
from fl_shield.errors import ConfigurationError
from fl_shield.simulations.cli import main as fl_shield_command
from fl_shield.simulations.composing import compose_config, config_groups
from fl_shield.simulations.settings import settings_from
from fl_shield.triggers.protocol import Trigger
from tests._loopback_grid import LoopbackGrid

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
)
CLASSES = 3


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "") -> list[str]:
    """Return the fenced blocks of a page in a language, without it those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return [body for name, body in found if name == language]


def commands(program: str) -> list[Any]:
    """Return every line of the pages' plain blocks that begins with the words of a command."""
    return [
        pytest.param(line, id=f"{page}: {line[:60]}")
        for page in PAGES
        for block in blocks(page)
        for line in block.replace("\\\n", " ").splitlines()
        if line.split()[: len(program.split())] == program.split()
    ]


def namespace_of(code: str) -> dict[str, Any]:
    """Execute a block as a module of its own and return its names."""
    # Dataclasses look their module up, so it must be registered while the block runs.
    module = ModuleType("documented")
    sys.modules["documented"] = module
    try:
        exec(compile(code, "<block>", "exec"), module.__dict__)
    finally:
        del sys.modules["documented"]
    return vars(module)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(inputs))
        return logits


def clean_samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 5), torch.arange(count) % CLASSES


def honest_clients() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = message.content.array_records["arrays"].to_torch_state_dict()
        moved = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in state.items()}
        metrics = MetricRecord({"train-loss": 1.0, "num-examples": 10})
        content = RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"eval-loss": 1.0, "num-examples": 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def test_the_ten_lines_of_the_readme_shield_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the user's own module is made up; strategy, messages and shield are real."""
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process for its identity
        monkeypatch.setattr(TaskIdentity, name, 1)
    mine = ModuleType("my_project")
    vars(mine).update(Net=Net, clean_samples=clean_samples)
    monkeypatch.setitem(sys.modules, "my_project", mine)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md", "python")
    app = namespace_of(code)["app"]
    context = Context(1, 1, {}, RecordDict(), {})
    app(LoopbackGrid(honest_clients(), num_clients=4), context)
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    verdicts = [json.loads(line) for line in lines]
    rounds = int(re.findall(r"num_rounds=(\d+)", code)[0])
    assert len(verdicts) == 4 * rounds
    assert {v["round"] for v in verdicts} == set(range(1, rounds + 1))
    # What README says a line holds:
    assert {"round", "node_id", "score", "evidence", "decision", "reasons"} <= set(verdicts[0])


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("my_project")
    vars(mine).update(Net=Net, clean_samples=clean_samples)
    monkeypatch.setitem(sys.modules, "my_project", mine)
    for code in blocks(page, "python"):
        namespace_of(code)


def test_the_documented_detector_is_one() -> None:
    (code,) = blocks("docs/architecture.md", "python")
    detector = namespace_of(code)["LoudestUpdate"]()
    assert isinstance(detector, Detector)
    standardised = np.array([[0.0, 5.0], [9.0, -1.0], [0.0, 0.5]])
    table = DescriptorTable(("log_norm", "turn@raw/clean"), standardised, standardised)
    np.testing.assert_allclose(detector.score(table), [4.0, -2.0, -0.5])


def test_the_documented_trigger_is_one() -> None:
    (code,) = blocks("CONTRIBUTING.md", "python")
    stripes = namespace_of(code)["Stripes"]
    trigger = stripes(every=2)
    assert isinstance(trigger, Trigger)
    split = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    images = Task("tiny", TaskSpec("image", (1, 4, 4), 2), split, split, ("a", "b"))
    clean = torch.zeros(1, 1, 4, 4)
    assert trigger.bind(images).apply(clean).sum(dim=3).flatten().tolist() == [4, 0, 4, 0]
    assert clean.sum() == 0
    with pytest.raises(ConfigurationError, match=r"`trigger.every` to be 1 or more, got 0"):
        stripes(every=0)


def test_there_are_commands_to_check() -> None:
    assert len(commands("fl-shield")) >= 8
    assert len(commands("make")) >= 1
    assert len(commands("flwr run")) >= 2


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    inline = re.findall(r"`(make [^`]*)`", text_of(page))
    blocked = [line for block in blocks(page) for line in block.splitlines()]
    words = [line.split()[1:] for line in [*inline, *blocked] if line.split()[:1] == ["make"]]
    used = {word for line in words for word in line if "=" not in word}
    assert used <= targets


@pytest.mark.parametrize("line", commands("fl-shield"))
def test_commands_are_understood(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line, comments=True)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit) as leaving:
            fl_shield_command(words)
        assert leaving.value.code == 0
    elif "--resume" in words or words[0] == "report":
        # There is no such run: the command must be refused for that, not for its form (status 2
        # of argparse is a SystemExit).
        assert fl_shield_command([*words[:-1], str(tmp_path / "none")]) == 2
        assert "run folder" in capsys.readouterr().err
    elif words[0] == "audit" and "--clean" in words:
        words[words.index("--clean") + 1] = str(tmp_path / "none")
        assert fl_shield_command(words) == 2
        assert "`--clean` to be a folder of images" in capsys.readouterr().err
    elif words[0] == "audit":
        # What is audited is not there: refused for that, not for the form of the command.
        words[1] = str(tmp_path / "none")
        assert fl_shield_command(words) == 2
        assert "a folder of captures or an audit log" in capsys.readouterr().err
    elif words[0] == "study":
        assert fl_shield_command([words[0], f"data_root={tmp_path}", *words[1:], "--cells"]) == 0
        assert re.search(r"^[1-9]\d* cells$", capsys.readouterr().out, flags=re.MULTILINE)
    elif words[0] == "filter":
        words[words.index("--clean") + 1] = str(tmp_path / "none")
        assert fl_shield_command(words) == 2
        assert "`--clean` to be a folder of images" in capsys.readouterr().err
    elif words[0] in ("shadow", "meta-train"):
        name = words[0].replace("-", "_")
        assert compose_config(words[1:], name=name).seed >= 0
    elif "--config-dir" in words:
        (tmp_path / "trigger").mkdir()
        own = tmp_path / "trigger" / "stripes.yaml"
        own.write_text("_target_: my_package.stripes.Stripes\n", encoding="utf-8")
        words[words.index("--config-dir") + 1] = str(tmp_path)
        assert fl_shield_command([*words, "--cfg"]) == 0
        assert "my_package.stripes.Stripes" in capsys.readouterr().out
    else:
        assert words[0] == "simulate"
        assert settings_from(compose_config(words[1:])).rounds >= 1


@pytest.mark.parametrize("line", commands("flwr run"))
def test_flower_gets_keys_that_the_app_has(line: str) -> None:
    words = shlex.split(line, comments=True)
    project = tomllib.loads(text_of("pyproject.toml"))
    known = project["tool"]["flwr"]["app"]["config"]
    given = tomllib.loads(
        "\n".join(re.findall(r'[\w-]+="[^"]*"', words[words.index("--run-config") + 1]))
    )
    assert given
    assert set(given) <= set(known)
    nodes = re.search(r"num-supernodes=(\d+)", line)
    settings = settings_from(compose_config(shlex.split(given["overrides"])))
    assert nodes is not None
    assert int(nodes.group(1)) == settings.num_clients


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text_of(page)):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    pattern = r"`((?:fl_shield|strategies|simulations|conf|tests|benchmarks)/[\w/.-]*)`"
    # NAME is for the reader to fill in; stripes is what the example adds.
    named = [
        n for n in re.findall(pattern, text_of(page)) if "NAME" not in n and "stripes" not in n
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []


def _documented(heading: str) -> dict[str, str]:
    """Return the rows of the table under a heading of the configuration page: key to the rest."""
    section = text_of("docs/configuration.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \|(.*)$", section, flags=re.MULTILINE))


def test_every_group_and_option_is_documented() -> None:
    shown = {
        group: sorted(re.findall(r"`(\w+)`", rest.rsplit("|", 2)[1]))
        for group, rest in _documented("Groups").items()
    }
    assert shown == config_groups()


def test_every_main_setting_is_documented() -> None:
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "config.yaml"))
    assert isinstance(config, dict)
    keys: set[str] = set()
    for key, value in config.items():
        if key != "defaults":
            keys |= (
                {f"{key!s}.{inner!s}" for inner in value} if isinstance(value, dict) else {str(key)}
            )
    assert set(_documented("Main settings")) == keys


def test_every_setting_of_the_shield_is_documented() -> None:
    config = OmegaConf.load(ROOT / "conf" / "defence" / "meta_shield.yaml")
    keys = {f"defence.{key!s}" for key in config if not str(key).startswith("_")}
    assert set(_documented("The shield")) == keys


def test_figures_of_the_readme_come_from_the_command() -> None:
    """The table is either not there yet, or that which `make results-demo` wrote down."""
    table = read_table(ROOT / "README.md", "demo-table")
    results = ROOT / "docs" / "results" / "demo.md"
    if not table:
        assert not results.exists(), "run make results-demo: README lacks its table"
        return
    assert table in results.read_text(encoding="utf-8")
