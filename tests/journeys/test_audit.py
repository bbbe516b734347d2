"""`fl-shield audit` as its user runs it: real captures of a small federation, and real logs."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.supercore.task_identity import TaskIdentity
from safetensors.torch import save_file

from fl_shield.audit import AuditLog
from fl_shield.auditing import summarise_log
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Action, Policy
from fl_shield.judge.verdict import Decision, Reason, Verdict
from fl_shield.simulations.cli import main
from tests import test_readme as readme
from tests._loopback_grid import LoopbackGrid
from tests.journeys._captures import (
    FIRST_ID,
    HONEST,
    MALICIOUS,
    MODULE,
    make_net,
    samples,
    write_workplace,
)
from tests.journeys._commands import run

ATTACKERS = [str(FIRST_ID + HONEST + k) for k in range(MALICIOUS)]
WITH = ("--model", f"{MODULE}:Net", "--probes", "probes.safetensors", "--detector", "detector")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    write_workplace(folder)
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_rounds_with_attackers(place: Path) -> None:
    status, output, errors = run("audit", "rounds", *WITH, "--json", "found.json", cwd=place)
    assert status == 3, errors
    assert "3 captured rounds" in output
    weights = (place / "detector" / "detector.safetensors").read_bytes()
    name = f"tiny detector {hashlib.sha256(weights).hexdigest()[:8]}"
    assert f"2 of 9 clients suspected from score 1. Detector: {name}." in output
    found = read(place / "found.json")
    assert sorted(found["suspects"]) == ATTACKERS
    assert found["threshold"] == 1.0
    assert len(found["findings"]) == 3 * (HONEST + MALICIOUS)
    first = found["clients"][0]
    assert first["client"] in ATTACKERS
    assert first["verdict"] == "suspected"
    assert first["rounds"] == first["suspected_rounds"] == [1, 2, 3]
    assert len(first["reasons"]) == 3
    line = next(line for line in output.splitlines() if ATTACKERS[0] in line)
    assert "3 of 3" in line
    assert "suspected" in line


def test_evidence_accumulates_over_rounds(here: Path) -> None:
    assert main(["audit", "rounds", *WITH, "--json", "all.json"]) == 3
    assert main(["audit", "rounds/round-000001", *WITH, "--json", "one.json"]) == 3
    every, alone = read(here / "all.json"), read(here / "one.json")
    first_round = [f for f in every["findings"] if f["round"] == 1]
    assert first_round == alone["findings"]
    evidence: dict[str, float] = {}
    for finding in every["findings"]:  # e = clip(0.8 e + score, −5, 10), in the order of rounds
        client = finding["client"]
        moved = 0.8 * evidence.get(client, 0.0) + finding["score"]
        evidence[client] = min(max(moved, -5.0), 10.0)
        assert finding["evidence"] == pytest.approx(evidence[client])


def test_honest_rounds_and_thresholds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "honest", *WITH]) == 0
    assert "0 of 7 clients suspected" in capsys.readouterr().out
    assert main(["audit", "honest/manifest.json", *WITH, "--threshold", "-100"]) == 3
    assert "7 of 7 clients suspected from score -100" in capsys.readouterr().out


def test_a_client_is_suspected_for_a_score_or_for_its_evidence(here: Path) -> None:
    out = ("--json", "limits.json")
    assert main(["audit", "rounds", *WITH, "--threshold", "100", *out]) == 3
    by_evidence = read(here / "limits.json")
    assert sorted(by_evidence["suspects"]) == ATTACKERS
    limits = ("--threshold", "100", "--evidence-threshold", "100")
    assert main(["audit", "rounds", *WITH, *limits, *out]) == 0
    assert read(here / "limits.json")["evidence_threshold"] == 100.0


@pytest.mark.parametrize(("folder", "clients"), [("pair", 2), ("alone", 1)])
def test_rounds_too_small_to_judge(
    here: Path, capsys: pytest.CaptureFixture[str], folder: str, clients: int
) -> None:
    assert main(["audit", folder, *WITH, "--threshold", "-100", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [client["verdict"] for client in found["clients"]] == ["not judged"] * clients
    assert all(isinstance(finding["score"], float) for finding in found["findings"])
    assert main(["audit", folder, *WITH]) == 0
    assert "Not judged: round 1. Fewer than 3 clients" in capsys.readouterr().out


def test_an_exported_model_says_the_same(here: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        make_net().eval(), (samples(8, seed=0)[0],), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, "model.pt2")
    options = ("--probes", "probes.safetensors", "--detector", "detector")
    status = main(["audit", "rounds", "--model-file", "model.pt2", *options, "--json", "file.json"])
    assert status == 3
    assert main(["audit", "rounds", *WITH, "--json", "code.json"]) == 3
    assert read(here / "file.json") == read(here / "code.json")


def test_the_default_detector_and_named_layer(here: Path) -> None:
    arguments = ["audit", "rounds", *WITH[:4], "--final-layer", "head", "--device", "cpu"]
    assert main(arguments) in (0, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "a folder of captures or an audit log, got 'nowhere'"),
        (["detector", *WITH], "a folder with a manifest.json"),
        (["rounds"], "got neither"),
        (["rounds", *WITH, "--model-file", "m.pt2"], "got both"),
        (["rounds", "--model", "a:b"], "`--probes`"),
        (["rounds", *WITH, "--model", f"{MODULE}.Net"], "module:factory"),
        (["rounds", *WITH, "--model", "no_such_module:Net"], "'no_such_module'"),
        (["rounds", *WITH, "--model", f"{MODULE}:Nett"], "Did you mean 'Net'?"),
        (["rounds", *WITH, "--model", f"{MODULE}:broken"], "no weights here"),
        (["rounds", *WITH, "--model", f"{MODULE}:text"], "a torch.nn.Module, got 'str'"),
        (["rounds", *WITH, "--probes", "nowhere"], "`--probes`"),
        (["rounds", *WITH, "--probes", "odd.safetensors"], "it holds pictures"),
        (["rounds", *WITH, "--probes", "wide.safetensors"], "cannot take the probe set"),
        (["rounds", *WITH, "--detector", "rounds"], "detector.json"),
        (["rounds", *WITH, "--detector", "broken"], "SHA-256"),
        (["rounds", *WITH, "--final-layer", "haed"], "Did you mean 'head'?"),
        (["rounds", *WITH, "--threshold", "nan"], "`--threshold`"),
        (["rounds", *WITH, "--evidence-threshold", "inf"], "`--evidence-threshold`"),
        (["rounds", *WITH, "--device", "abacus"], "`--device`"),
        (["rounds", *WITH, "--json", "probes.safetensors/x.json"], "`--json`"),
        (["probes.safetensors", "--threshold", "2"], "--threshold goes with a folder"),
        (["probes.safetensors"], "line 1 is damaged"),
    ],
)
def test_one_clear_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    save_file({"pictures": torch.rand(8, 12)}, "odd.safetensors")
    save_file({"inputs": torch.rand(8, 5)}, "wide.safetensors")
    (here / "broken").mkdir(exist_ok=True)
    for file in (here / "detector").iterdir():
        (here / "broken" / file.name).write_bytes(
            file.read_bytes().replace(b'"sha256": "', b'"sha256": "0')
        )
    assert main(["audit", *arguments]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_damaged_capture_is_named(place: Path) -> None:
    shutil.copytree(place / "honest", place / "torn", dirs_exist_ok=True)
    weights = sorted((place / "torn").glob("client-*"))[1]
    weights.write_bytes(weights.read_bytes()[:-4])
    status, _, errors = run("audit", "torn", *WITH, cwd=place)
    assert status == 2
    assert f"{weights.name} is damaged" in errors
    assert "Traceback" not in errors


def test_the_documented_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps its rounds, probes in a file, an exported model, and their audit."""
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process for its identity
        monkeypatch.setattr(TaskIdentity, name, 1)
    mine = ModuleType("my_project")
    vars(mine).update(Net=readme.Net, clean_samples=readme.clean_samples)
    monkeypatch.setitem(sys.modules, "my_project", mine)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in readme.blocks("docs/auditing.md", "python"):
        names |= readme.namespace_of(code)
    grid = LoopbackGrid(readme.honest_clients(), num_clients=4)
    arrays = ArrayRecord(readme.Net().state_dict())
    names["shielded"](".").start(grid, arrays, num_rounds=2)
    names["save_probes"]("probes.safetensors")
    names["export"]("model.pt2")
    for model in (("--model", "my_project:Net"), ("--model-file", "model.pt2")):
        options = ("--probes", "probes.safetensors", "--json", "found.json")
        assert main(["audit", "captures", *model, *options]) in (0, 3)
        found = read(tmp_path / "found.json")
        assert {finding["round"] for finding in found["findings"]} == {1, 2}
        assert len(found["clients"]) == 4
    assert main(["audit", "audit.jsonl", "--json", "found.json"]) in (0, 3)
    assert [node["rounds"] for node in read(tmp_path / "found.json")["nodes"]] == [2] * 4


def verdict(number: int, client: int, decision: Decision, **values: Any) -> Verdict:
    weight = {Decision.KEEP: 1.0, Decision.DOWNWEIGHT: 0.3}.get(decision, 0.0)
    given = {"score": 1.0, "evidence": 1.0, "weight": weight} | values
    return Verdict(number, client, decision, **given)


def test_an_audit_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    peak, turn = Reason("row_peak", 3.0), Reason("turn@raw/clean", 2.0)
    none = {"score": None, "evidence": None}
    log.append(
        [
            verdict(1, 5, Decision.DROP, score=4.0, evidence=4.0, reasons=(peak, turn)),
            verdict(1, 2**63, Decision.KEEP, score=-1.0, evidence=-1.0, reasons=(turn,)),
            verdict(1, 7, Decision.REJECT, **none, detail="not-finite: 'w' holds NaN"),
        ]
    )
    log.append(
        [
            verdict(
                2,
                5,
                Decision.DOWNWEIGHT,
                score=2.0,
                evidence=5.2,
                reasons=(Reason("row_peak", 1.0),),
            ),
            verdict(2, 2**63, Decision.KEEP, score=-2.0, evidence=-2.8, reasons=(turn,)),
            verdict(
                2,
                7,
                Decision.KEEP,
                score=3.0,
                detail="suspicious, kept because the policy is 'monitor'.",
            ),
        ]
    )
    status, output, errors = run("audit", "audit.jsonl", "--json", "found.json", cwd=tmp_path)
    assert status == 3, errors
    assert "6 verdicts of 2 rounds on 3 nodes; 2 suspected in any round." in output
    found = read(tmp_path / "found.json")
    assert found["suspects"] == ["5", "7"]
    first, second, last = found["nodes"]
    assert (first["rounds"], first["dropped"], first["downweighted"]) == (2, 1, 1)
    assert (first["highest_score"], first["last_evidence"]) == (4.0, 5.2)
    assert first["reasons"][0] == {"name": "row_peak", "value": 2.0}
    assert (second["rejected"], second["spared"], second["last_evidence"]) == (1, 1, 1.0)
    assert last["node_id"] == str(2**63)
    assert not last["suspected"]


def test_suspects_that_a_policy_spared() -> None:
    raw = np.zeros((4, 1))
    table = DescriptorTable(("row_peak",), raw, raw)
    scores = np.array([-1.0, -1.0, 5.0, 4.0])
    for policy in (Policy(Action.MONITOR), Policy(max_drop_share=0.25)):
        verdicts = Judge(policy).judge(1, [1, 2, 3, 4], scores, table, raw)
        nodes = {node.node_id: node for node in summarise_log(v.as_record() for v in verdicts)}
        assert [node for node in "1234" if nodes[node].suspected] == ["3", "4"]
        assert nodes["4"].spared == 1


def test_a_log_of_nothing_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.jsonl"
    AuditLog(file)
    assert main(["audit", str(file)]) == 0
    AuditLog(file).append([verdict(1, 3, Decision.REJECT, score=None, evidence=None)])
    assert main(["audit", str(file)]) == 0  # malformed is no suspicion of a backdoor
    assert "1 verdicts of 1 rounds on 1 nodes; 0 suspected" in capsys.readouterr().out


def test_help_says_what_to_give(place: Path) -> None:
    status, output, _ = run("audit", "--help", cwd=place)
    assert status == 0
    for shown in (
        "MetaShield(…, capture=DIR)",
        "audit.jsonl",
        "--probes",
        "exit status",
        "input_ids",
    ):
        assert shown in output
