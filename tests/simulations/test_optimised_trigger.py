"""A trigger that follows the global model: attackers and evaluator come to the same one."""

from __future__ import annotations

import torch
from torch import nn

from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import Federation, build_federation
from fl_shield.simulations.settings import settings_from
from fl_shield.triggers.pixel_box import PixelBox

SMALL = ("tracking=none", "num_clients=6", "warm_start.epochs=2", "trigger=a3fl", "trigger.steps=8")


def federation(*overrides: str) -> Federation:
    return build_federation(settings_from(compose_config([*SMALL, *overrides])))


def sent_out(made: Federation, shift: float = 0.0) -> nn.Module:
    model = made.initial_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shift * torch.arange(parameter.numel()).sin().view_as(parameter))
    return model


def test_every_attacker_and_the_evaluator_hold_the_same_trigger() -> None:
    made, again = federation("attackers=2"), federation("attackers=2", "rounds=9")
    assert again is not made  # as another process would build it
    one, other = sorted(made.attackers)
    model = sent_out(made)
    attacks = [made.attack_of(c, 1, attacked=True, model=model) for c in (one, other)]
    attacks += [again.attack_of(one, 1, attacked=True, model=sent_out(again))]
    judged = made.attack_against(model, 1).trigger
    assert isinstance(judged, PixelBox)
    assert [attack.trigger for attack in attacks if attack is not None] == [judged] * 3


def test_it_follows_the_model_and_the_round() -> None:
    made = federation("attackers=2")
    first = made.attack_against(sent_out(made), 1)
    assert made.attack_against(sent_out(made), 1) is first  # not worked out twice
    assert made.attack_against(sent_out(made, 0.5), 1).trigger != first.trigger
    assert made.attack_against(sent_out(made), 1).trigger == first.trigger
    drawn = federation("attackers=2", "trigger.batch_size=4", "trigger.steps=3")
    rounds = [drawn.attack_against(sent_out(drawn), number).trigger for number in (1, 2, 3, 4)]
    assert len({repr(trigger) for trigger in rounds}) > 1  # other batches


def test_without_attackers_or_model_it_is_what_it_begins_with() -> None:
    image = torch.rand(1, 1, 8, 8)
    nobody = federation("attackers=0")
    start = nobody.attack.trigger.apply(image)
    assert torch.equal(nobody.attack_against(sent_out(nobody), 1).trigger.apply(image), start)
    made = federation("attackers=2")
    attack = made.attack_of(min(made.attackers), 1, attacked=True)
    assert attack is not None
    assert torch.equal(attack.trigger.apply(image), start)
    assert made.attack_of(min(made.attackers), 1, attacked=False, model=sent_out(made)) is None


def test_other_triggers_are_left_alone() -> None:
    made = build_federation(settings_from(compose_config([*SMALL[:3], "attackers=2"])))
    assert made.attack_against(sent_out(made), 1) is made.attack
