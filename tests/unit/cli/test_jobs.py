"""Jobs as files, and the default job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus.cli import defaults, federation
from isthmus.cli.homes import Home
from isthmus.cli.jobs import demo_job, privacy_of, promise, read_job
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import PersonId, SiteId
from isthmus.contracts.jobs import JobRequest
from isthmus.contracts.orders import TrainingPrivacy
from isthmus.learning import algorithm
from isthmus.proof import canonical

ZONES = (SiteId("us-texas"), SiteId("cn-shanghai"))

TOML = """
name = "night-drive"
algorithm = "motion-forecast-fedavg"
purpose = "forecast-training"
recipients = ["cn-shanghai", "hq"]

[[zones]]
zone = "cn-shanghai"
dataset = { dataset = "drives", snapshot = "2026q4" }

[training]
rounds = 3
epochs = 1
batch_size = 64
learning_rate_micro = 1000
seed = 7
weighting = "vehicles"
held_out_vehicles = 12
split_salt = "split-1"
adaptation_epochs = 1
reference_epochs = 1
"""


def test_the_reference_makes_as_many_passes_as_the_adapted_model() -> None:
    for rounds in (1, 7, 60):
        plan = defaults.training_plan(rounds)
        assert plan.reference_epochs == plan.rounds * plan.epochs + plan.adaptation_epochs
    assert defaults.training_plan().reference_epochs == 130


def test_the_default_job_is_whole_and_names_every_site() -> None:
    job = defaults.training_job(SiteId("hq"), ZONES)
    assert canonical.load(JobRequest, canonical.dump(job)) == job
    assert job.recipients == (SiteId("cn-shanghai"), SiteId("hq"), SiteId("us-texas"))
    assert job.evaluation is not None
    assert job.evaluation.at_slots == (60,)
    assert job.algorithm == algorithm.NAME


def test_the_default_job_covers_the_zones_of_the_roster(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    home = Home.open(tmp_path / "home")
    assert demo_job(home) == defaults.training_job(SiteId("hq"), ZONES)
    assert home.engineer() == PersonId("maya.engineer")


def test_the_default_job_trains_privately_where_that_is_asked_for() -> None:
    privacy = privacy_of(4.0, None, 1.0, 200)
    assert privacy == TrainingPrivacy(
        epsilon_micro=4_000_000, delta_exponent=6, vehicle_norm_micro=1_000_000, vehicles=200
    )
    job = defaults.training_job(SiteId("hq"), ZONES, privacy=privacy)
    assert job.training is not None
    assert job.training.privacy == privacy
    assert canonical.load(JobRequest, canonical.dump(job)) == job
    assert "epsilon 4 (delta 1e-6)" in promise(privacy)
    assert privacy_of(None, None, None, None) is None


@pytest.mark.parametrize(
    "said",
    [
        (4.0, None, None, None),
        (None, 6, None, None),
        (None, None, 1.0, 200),
        (4.0, 6, 1.0, None),
        (0.0, None, 1.0, 200),
        (float("inf"), None, 1.0, 200),
        (float("nan"), None, 1.0, 200),
        (4.0, 5, 1.0, 200),
        (4.0, None, -1.0, 200),
        (4.0, None, 1.0, 0),
    ],
)
def test_a_part_of_a_privacy_or_one_out_of_bounds_is_a_usage_error(said: tuple[Any, Any, Any, Any]) -> None:
    with pytest.raises(typer.BadParameter, match="private training"):
        privacy_of(*said)


def test_a_file_says_itself_that_it_is_private(tmp_path: Path) -> None:
    text = "[training.privacy]\nepsilon_micro = 4_000_000\ndelta_exponent = 6\n"
    (tmp_path / "job.toml").write_text(TOML + text + "vehicle_norm_micro = 1_000_000\nvehicles = 200\n")
    job = read_job(tmp_path / "job.toml")
    assert job.training is not None
    assert job.training.privacy == privacy_of(4.0, 6, 1.0, 200)
    (tmp_path / "job.toml").write_text(TOML + text + "vehicle_norm_micro = 1_000_000\n")
    with pytest.raises(Refusal, match=r"training\.privacy\.vehicles"):
        read_job(tmp_path / "job.toml")


def test_the_reference_page_shows_the_default_job(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text("utf-8")
    (tmp_path / "job.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert read_job(tmp_path / "job.toml") == defaults.training_job(SiteId("hq"), ZONES)


def test_a_job_is_read_from_toml_and_from_json(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(TOML)
    job = read_job(tmp_path / "job.toml")
    assert job.training is not None
    assert job.training.rounds == 3
    (tmp_path / "job.json").write_bytes(canonical.dump(job))
    assert read_job(tmp_path / "job.json") == job


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("rounds = 3", "rounds = 0", "training.rounds"),
        ("learning_rate_micro = 1000", "learning_rate_micro = 0.001", "training.learning_rate_micro"),
        ('weighting = "vehicles"', 'weighting = "size"', "training.weighting"),
        ("[training]", "[training]\nspeed = 1", "training.?"),
        ('purpose = "forecast-training"', "", "purpose"),
    ],
)
def test_what_is_wrong_with_a_job_is_named(tmp_path: Path, old: str, new: str, place: str) -> None:
    (tmp_path / "job.toml").write_text(TOML.replace(old, new))
    with pytest.raises(Refusal) as refused:
        read_job(tmp_path / "job.toml")
    assert refused.value.code is Code.INPUT_INVALID
    assert place in str(refused.value)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(json.loads(canonical.dump(defaults.training_job(SiteId("hq"), ZONES))))
    (tmp_path / "job.json").write_text(text.replace('"purpose"', '"purpose": "resale", "purpose"', 1))
    with pytest.raises(Refusal) as refused:
        read_job(tmp_path / "job.json")
    assert refused.value.code is Code.INPUT_INVALID


def test_what_is_no_toml_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("name = ")
    with pytest.raises(typer.BadParameter):
        read_job(tmp_path / "job.toml")


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault) as fault:
        read_job(tmp_path / "nowhere.toml")
    assert fault.value.code is Code.STORAGE_FAILED
