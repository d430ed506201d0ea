"""Folder, function, samples and test of each function go together; queues and routes are all accounted for."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from tocsin.routes import OPEN_PATHS, ROUTES

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text("utf-8"))
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
FUNCTIONS = {
    name.removesuffix("Function").lower(): body["Properties"]
    for name, body in RESOURCES.items()
    if body["Type"] == "AWS::Serverless::Function"
}
QUEUES = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::SQS::Queue"}
#: Samples that are no function's: the demo's story.
NOT_A_FUNCTION = {"demo"}
MAX_HANDLER_LINES = 40


def folders(parent: str) -> set[str]:
    return {path.name for path in (ROOT / parent).iterdir() if path.is_dir() and path.name != "__pycache__"}


def samples(function: str) -> list[Path]:
    return sorted((ROOT / "events" / function).glob("*"))


def source(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def test_folders_functions_samples_and_tests_are_the_same_names() -> None:
    assert FUNCTIONS
    assert folders("functions") == set(FUNCTIONS)
    assert folders("events") - NOT_A_FUNCTION == set(FUNCTIONS)
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "functions").glob("test_*.py")}
    assert set(FUNCTIONS) <= tests


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_the_template_points_at_the_folder(function: str) -> None:
    properties = FUNCTIONS[function]
    assert properties["CodeUri"] == f"functions/{function}/"
    handler = properties.get("Handler", TEMPLATE["Globals"]["Function"]["Handler"])
    module, _, name = handler.partition(".")
    tree = ast.parse(source(f"functions/{function}/{module}.py"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in defined


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_every_sample_is_an_event_and_used_by_the_functions_own_test(function: str) -> None:
    found = samples(function)
    assert found, "a function without a sample"
    for path in found:
        assert path.suffix == ".json"
        assert isinstance(json.loads(path.read_text("utf-8")), dict), path.name
    text = source(f"tests/functions/test_{function}.py")
    assert f'"events" / "{function}"' in text
    # Either every file of the folder is a case, or each is named.
    named = [path.stem for path in found if f'"{path.stem}"' in text or f'"{path.name}"' in text]
    assert 'glob("*.json")' in text or len(named) == len(found)


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_sample_has_the_shape_of_what_triggers_its_function(function: str) -> None:
    triggers = {event["Type"] for event in FUNCTIONS[function]["Events"].values()}
    for path in samples(function):
        event = json.loads(path.read_text("utf-8"))
        shapes = {
            "Records": "SQS",
            "requestContext": "Api",
            "detail-type": "Schedule",
        }
        kinds = {kind for key, kind in shapes.items() if key in event}
        assert kinds, path.name
        assert kinds <= triggers, path.name
        if "Records" in event:
            for record in event["Records"]:
                assert record["eventSource"] == "aws:sqs"
                assert record["eventSourceARN"].endswith(f":tocsin-{function}")


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_handler_is_thin(function: str) -> None:
    text = source(f"functions/{function}/handler.py")
    assert len(text.splitlines()) <= MAX_HANDLER_LINES
    assert [path.name for path in (ROOT / "functions" / function).glob("*.py")] == ["handler.py"]
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
    assert not imported & {"boto3", "botocore", "aws_lambda_powertools", "pydantic"}
    assert "tocsin.aws" not in text
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    guarded = [name for name, node in defined.items() if node.decorator_list]
    assert guarded, "nothing stands between an exception and the platform"
    assert "handler" in guarded or all(name in ast.dump(defined["handler"]) for name in guarded)


def consumers(queue: str) -> list[str]:
    return [
        name
        for name, properties in FUNCTIONS.items()
        for event in properties["Events"].values()
        if event["Type"] == "SQS" and event["Properties"]["Queue"] == {"Fn::GetAtt": [queue, "Arn"]}
    ]


def test_every_queue_has_one_consumer_and_dead_letters_or_is_dead_letters() -> None:
    dead = {
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]: name
        for name, queue in QUEUES.items()
        if "RedrivePolicy" in queue
    }
    for name, body in RESOURCES.items():  # what is invoked by no queue has dead letters of its own
        if body["Type"] == "AWS::Lambda::EventInvokeConfig":
            dead[body["Properties"]["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]] = name
    for name, queue in QUEUES.items():
        if name in dead:
            assert "RedrivePolicy" not in queue
            assert consumers(name) == [], "dead letters are looked at by people"
        else:
            assert len(consumers(name)) == 1, name
            assert queue["RedrivePolicy"]["maxReceiveCount"] >= 3, name
    assert len(set(dead)) == len(dead), "each has its own"


def test_every_queue_is_known_to_the_supervisor_and_to_the_command_line() -> None:
    from tools.cli.__main__ import QUEUES as LISTED

    worked = {name.removesuffix("Queue").lower() for name, queue in QUEUES.items() if "RedrivePolicy" in queue}
    assert set(LISTED) == worked
    (watched,) = re.findall(r"WORKED: Final = \(([^)]*)\)", source("shared/tocsin/wiring.py"))
    assert set(re.findall(r'"(\w+)"', watched)) == worked


def test_every_route_is_authenticated_except_the_open_list() -> None:
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            assert (route.scope is None) == (path in OPEN_PATHS), path
            assert (route.scope is None) == (route.function == "public"), path
    paths = {
        (name, event["Properties"]["Path"])
        for name, properties in FUNCTIONS.items()
        for event in properties["Events"].values()
        if event["Type"] == "Api"
    }
    assert {path for name, path in paths if name == "public"} == OPEN_PATHS
    fronts = {name for name, _ in paths} | {
        name for name, properties in FUNCTIONS.items() if "FunctionUrlConfig" in properties
    }
    for name in fronts - {"public"}:
        text = source(f"functions/{name}/handler.py")
        assert "wiring.principal_of" in text or "wiring.admit" in text, f"{name} authenticates nobody"


def test_no_switch_turns_authentication_off() -> None:
    for path in (*(ROOT / "shared").rglob("*.py"), *(ROOT / "functions").rglob("*.py"), ROOT / "template.yaml"):
        text = path.read_text("utf-8").lower()
        assert not re.search(r"(skip|disable|no|without|bypass|allow)_?(auth|anonymous)\w*\s*[:=]", text), path
