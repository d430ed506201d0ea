"""The template holds what the platforms and the design ask of it, and agrees with the code."""

from __future__ import annotations

import copy
import inspect
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from tocsin import wiring
from tocsin.connectors import registry
from tocsin.routes import OPEN_PATHS, ROUTES
from tocsin.settings import Settings, settings

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
FUNCTIONS = {
    name.removesuffix("Function").lower(): body["Properties"]
    for name, body in RESOURCES.items()
    if body["Type"] == "AWS::Serverless::Function"
}
QUEUES = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::SQS::Queue"}
WORKED = {name: queue for name, queue in QUEUES.items() if "RedrivePolicy" in queue}
DEAD = {name: queue for name, queue in QUEUES.items() if "RedrivePolicy" not in queue}
DAY = 86_400


class _ManagedPolicies:
    """Stands in for the IAM call by which SAM resolves managed policy names."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="module")
def translated() -> dict[str, dict[str, Any]]:
    """The resources CloudFormation sees."""
    template = copy.deepcopy(TEMPLATE)
    for body in template["Resources"].values():
        for address in ("CodeUri", "ContentUri"):
            if address in body.get("Properties", {}):
                body["Properties"][address] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        return dict(transform(template, {}, _ManagedPolicies())["Resources"])


def events(function: str, kind: str) -> list[dict[str, Any]]:
    return [event["Properties"] for event in FUNCTIONS[function].get("Events", {}).values() if event["Type"] == kind]


def routes(function: str) -> set[tuple[str, str]]:
    return {(event["Method"].upper(), event["Path"]) for event in events(function, "Api")}


def environment(function: str) -> dict[str, Any]:
    own = FUNCTIONS[function]["Environment"]["Variables"]
    return {**TEMPLATE["Globals"]["Function"]["Environment"]["Variables"], **own}


def statements(function: str) -> list[dict[str, Any]]:
    inline = [policy["Statement"] for policy in FUNCTIONS[function]["Policies"] if "Statement" in policy]
    return [statement for group in inline for statement in group]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resource_of(reference: dict[str, Any]) -> str:
    """The resource that a Ref or a GetAtt names."""
    return str(reference["Ref"] if "Ref" in reference else reference["Fn::GetAtt"][0])


def test_cloudformation_can_take_it(translated: dict[str, dict[str, Any]]) -> None:
    assert len(translated) <= 450
    assert not [name for name, body in translated.items() if body["Type"] == "AWS::CloudFormation::Stack"]


def test_resource_policy_of_every_function_has_room(translated: dict[str, dict[str, Any]]) -> None:
    sizes: Counter[str] = Counter()
    for body in translated.values():
        if body["Type"] == "AWS::Lambda::Permission":
            # Lambda stores more than the properties: statement id, effect, condition, its own ARN.
            sizes[json.dumps(body["Properties"]["FunctionName"])] += len(json.dumps(body["Properties"])) + 300
    assert sizes
    assert max(sizes.values()) <= 16_384


def test_folder_function_and_name_agree() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}
    assert folders == set(FUNCTIONS)
    for name, function in FUNCTIONS.items():
        assert function["CodeUri"] == f"functions/{name}/"
        assert function["FunctionName"] == {"Fn::Sub": "${AWS::StackName}-" + name}
        assert environment(name)["POWERTOOLS_SERVICE_NAME"] == name


def test_every_function_says_what_triggers_it_and_what_its_failure_looks_like() -> None:
    lines = (ROOT / "template.yaml").read_text().splitlines()
    for name in FUNCTIONS:
        at = lines.index(f"  {name.capitalize()}Function:")
        assert lines[at - 2].startswith("  # Trigger: "), name
        assert lines[at - 1].startswith("  # When it fails: "), name


def test_every_function_has_its_memory_time_and_layers() -> None:
    shared = TEMPLATE["Globals"]["Function"]
    for name, function in FUNCTIONS.items():
        chosen = {**shared, **function}
        assert 128 <= chosen["MemorySize"] <= 3008, name
        longest = 300 if name == "privacy" else 60  # it works through everything that a project holds
        assert 1 <= chosen["Timeout"] <= (29 if events(name, "Api") else longest), name
        assert function.get("Layers", []) == ([{"Ref": "AnalysisLayer"}] if name == "govern" else [])
    assert shared["Layers"] == [{"Ref": "RuntimeLayer"}, {"Ref": "SharedLayer"}]  # to which SAM adds a function's own


def test_the_platform_logs_nothing_about_calls_that_went_well() -> None:
    """Levels are read from the lines only in JSON; both sides must mean the same one."""
    for name, function in FUNCTIONS.items():
        config = {**TEMPLATE["Globals"]["Function"], **function}["LoggingConfig"]
        assert (config["LogFormat"], config["SystemLogLevel"]) == ("JSON", "WARN"), name
        assert config["ApplicationLogLevel"] == environment(name)["LOG_LEVEL"] == {"Ref": "LogLevel"}
    assert set(TEMPLATE["Parameters"]["LogLevel"]["AllowedValues"]) <= {
        "TRACE",
        "DEBUG",
        "INFO",
        "WARN",
        "ERROR",
        "FATAL",
    }


def test_a_queue_that_fills_large_batches_has_a_window_and_one_that_does_not_has_none() -> None:
    """AWS refuses a batch size above ten without a window."""
    lowest = TEMPLATE["Parameters"]["BatchWindow"]["MinValue"]
    for name in FUNCTIONS:
        for mapping in events(name, "SQS"):
            window = mapping.get("MaximumBatchingWindowInSeconds")
            assert (window is not None) == (mapping["BatchSize"] > 10), name
            assert window in (None, {"Ref": "BatchWindow"}), name
    assert lowest == 1


def test_no_route_form_that_an_emulator_ignores() -> None:
    types = {body["Type"] for body in RESOURCES.values()}
    assert not types & {
        "AWS::Serverless::HttpApi",
        "AWS::ApiGatewayV2::Api",
        "AWS::Pipes::Pipe",
        "AWS::Events::Archive",
    }
    for name in FUNCTIONS:
        for verb, _ in routes(name):
            assert verb in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, name


def test_open_routes_are_those_of_the_route_table_and_no_others() -> None:
    assert routes("public") == {("GET", path) for path in OPEN_PATHS}


def test_every_route_of_the_table_reaches_its_function() -> None:
    explicit = {route: name for name in FUNCTIONS for route in routes(name) if "{proxy+}" not in route[1]}
    branches = {route: name for name in FUNCTIONS for route in routes(name) if "{proxy+}" in route[1]}
    named = {path for _, path in explicit}
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            address = path.rstrip("/")  # API Gateway has no resources that end in a slash, and takes it for none
            # A branch serves paths that nobody names, but not a verb that is missing on a named path.
            held = [
                (len(branch), name)
                for (verb, branch), name in branches.items()
                if verb == route.method and address.startswith(branch.removesuffix("{proxy+}"))
            ]
            reached = explicit.get((route.method, address)) if address in named else max(held)[1]
            assert reached == route.function, (route.method, path)


def test_sending_can_be_preflighted() -> None:
    sending = {path for verb, path in routes("ingest") if verb == "POST"}
    assert {("OPTIONS", path) for path in sending} <= routes("ingest")
    assert FUNCTIONS["ingest"]["FunctionUrlConfig"]["AuthType"] == "NONE"


def test_bodies_arrive_byte_exact() -> None:
    binary = RESOURCES["Api"]["Properties"]["BinaryMediaTypes"]
    assert not [media for media in binary if "*" in media]
    assert {"application/json", "application/x-ndjson", "application/gzip"} <= set(binary)
    assert {"application/cloudevents+json", "application/cloudevents-batch+json"} <= set(binary)
    spoken = {media for name in registry.names() for media in registry.load(name).media} - {"", "*"}
    assert spoken | {"application/x-sentry-envelope"} <= set(binary)


@pytest.mark.parametrize("queue", sorted(WORKED))
def test_every_queue_is_consumed_once_and_dead_lettered(queue: str) -> None:
    consumers = [
        (name, event)
        for name in FUNCTIONS
        for event in events(name, "SQS")
        if event["Queue"] == {"Fn::GetAtt": [queue, "Arn"]}
    ]
    assert len(consumers) == 1
    name, event = consumers[0]
    assert queue == f"{name.capitalize()}Queue"
    assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert event["ScalingConfig"] == {"MaximumConcurrency": {"Fn::FindInMap": ["Workers", {"Ref": "Size"}, "PerQueue"]}}
    timeout = FUNCTIONS[name].get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    assert WORKED[queue]["VisibilityTimeout"] == 6 * timeout
    assert WORKED[queue]["MessageRetentionPeriod"] == 4 * DAY
    dead = f"{name.capitalize()}DeadLetters"
    assert WORKED[queue]["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": [dead, "Arn"]},
        "maxReceiveCount": 5,
    }
    assert DEAD[dead]["MessageRetentionPeriod"] == 14 * DAY


def test_dead_letters_and_failing_functions_raise_alarms() -> None:
    alarms = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::CloudWatch::Alarm"}
    watched = {json.dumps(alarm["Dimensions"][0]["Value"]) for alarm in alarms.values()}
    for queue in QUEUES:
        assert json.dumps({"Fn::GetAtt": [queue, "QueueName"]}) in watched
    for name in FUNCTIONS:
        assert json.dumps({"Ref": f"{name.capitalize()}Function"}) in watched


def test_faults_of_both_fronts_raise_alarms_and_cost_where_a_budget_is_set() -> None:
    api, bulk, budget = (RESOURCES[name] for name in ("ApiFaultsAlarm", "BulkFaultsAlarm", "Budget"))
    assert (api["Properties"]["MetricName"], api["Properties"]["Statistic"]) == ("5XXError", "Average")
    assert api["Properties"]["Dimensions"][0]["Value"] == RESOURCES["Api"]["Properties"]["Name"]
    assert bulk["Properties"]["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "IngestFunction"}}]
    # No emulator knows the resource, and nobody is told without a topic.
    assert TEMPLATE["Parameters"]["MonthlyBudget"]["Default"] == 0
    assert budget["Condition"] == "HasBudget"
    assert {"Condition": "HasAlarmTopic"} in TEMPLATE["Conditions"]["HasBudget"]["Fn::And"]
    for alarm in (body["Properties"] for body in RESOURCES.values() if body["Type"] == "AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"]["Fn::If"][0] == "HasAlarmTopic"


def test_queues_are_encrypted() -> None:
    assert all(queue["SqsManagedSseEnabled"] is True for queue in QUEUES.values())


def test_rules_feed_queues_that_admit_them() -> None:
    rules = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::Events::Rule"}
    (policy,) = (body["Properties"] for body in RESOURCES.values() if body["Type"] == "AWS::SQS::QueuePolicy")
    (statement,) = policy["PolicyDocument"]["Statement"]
    for name, rule in rules.items():
        assert {"Fn::GetAtt": [name, "Arn"]} in statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        for target in rule["Targets"]:
            queue = target["Arn"]["Fn::GetAtt"][0]
            assert queue in WORKED
            assert {"Ref": queue} in policy["Queues"]
    direct = {name for name in FUNCTIONS if events(name, "Schedule") or events(name, "EventBridgeRule")}
    assert direct == {"connect", "supervise"}


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_environment_is_what_settings_read(function: str) -> None:
    fields = {f"TOCSIN_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert {name for name in environment(function) if name.startswith("TOCSIN_")} <= fields


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_may_do_what_it_was_given_names_for_and_no_more(function: str) -> None:
    allowed: dict[str, list[Any]] = {}
    for statement in statements(function):
        for action in as_list(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), f"{action} names no single action"
            allowed.setdefault(action, []).extend(as_list(statement["Resource"]))
        if "*" in as_list(statement["Resource"]):
            assert statement["Sid"] == "SeeMappings"
    named = environment(function)

    def resources(prefix: str) -> set[str]:
        return {resource_of(value) for name, value in named.items() if re.fullmatch(prefix, name)}

    secrets = {resource_of(resource) for resource in allowed.get("secretsmanager:GetSecretValue", [])}
    assert secrets == resources("TOCSIN_SECRET_.*")
    sends = {resource_of(resource) for resource in allowed.get("sqs:SendMessage", [])}
    failed = {  # where Lambda itself lays what a function failed at, under the function's role
        body["Properties"]["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
        for body in RESOURCES.values()
        if body["Type"] == "AWS::Lambda::EventInvokeConfig"
        and body["Properties"]["FunctionName"] == {"Ref": f"{function.capitalize()}Function"}
    }
    assert sends <= resources("TOCSIN_.*_QUEUE") | failed
    assert ("events:PutEvents" in allowed) == ("TOCSIN_BUS" in named)
    files = allowed.get("s3:GetObject", []) + allowed.get("s3:PutObject", [])
    buckets = {re.match(r"\$\{(\w+)\.Arn\}/", resource["Fn::Sub"])[1] for resource in files}  # type: ignore[index]
    assert buckets <= resources("TOCSIN_.*BUCKET")


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_is_given_every_name_it_asks_for(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
        monkeypatch.delenv(name)
    for name in environment(function):
        number = Settings.__dataclass_fields__.get(name.removeprefix("TOCSIN_").lower())
        monkeypatch.setenv(name, "1" if number and number.type == "int" else "host:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(wiring, "secret", lambda _name: bytes(32))
    source = (ROOT / "functions" / function / "handler.py").read_text()
    asked = {getattr(wiring, name) for name in re.findall(r"\bwiring\.(\w+)", source)}
    assert asked
    factories = [value for value in [*vars(wiring).values(), settings] if hasattr(value, "cache_clear")]
    try:
        for factory in factories:
            factory.cache_clear()
        if {"principal_of", "SenderDoor", "reception"} & {factory.__name__ for factory in asked}:
            asked.add(wiring.cordon)  # whoever knows a caller holds it against the quarantines
        for factory in asked:
            if hasattr(factory, "cache_clear"):
                factory()  # raises KeyError with the name of the variable that is missing
            else:
                for name in re.findall(r'(?:require|queue)\("(\w+)"\)', inspect.getsource(factory)):
                    settings().require(name)
    finally:
        for factory in factories:
            factory.cache_clear()


def test_nothing_scans_but_what_works_through_everything_of_a_project() -> None:
    text = (ROOT / "template.yaml").read_text()
    assert text.count("dynamodb:Scan") == 1
    assert "dynamodb:*" not in text
    assert "dynamodb:Scan" in {action for one in statements("privacy") for action in as_list(one["Action"])}


def test_only_the_privacy_function_destroys_data_keys_and_objects() -> None:
    def may(function: str, action: str, resource: str) -> bool:
        return any(
            action in as_list(one["Action"]) and resource in json.dumps(one["Resource"]) for one in statements(function)
        )

    assert {name for name in FUNCTIONS if may(name, "s3:DeleteObject", "Bucket")} == {"privacy"}
    assert {name for name in FUNCTIONS if may(name, "dynamodb:DeleteItem", "DataKeys")} == {"privacy"}
    shared = RESOURCES["DataKeyAccess"]["Properties"]["PolicyDocument"]["Statement"]
    assert not [one for one in shared if "dynamodb:DeleteItem" in as_list(one["Action"])]


def test_what_is_kept_is_private_and_leaves_in_time() -> None:
    bucket, table = RESOURCES["Bucket"]["Properties"], RESOURCES["Table"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    claims = next(rule for rule in bucket["LifecycleConfiguration"]["Rules"] if rule.get("Prefix") == "claim/")
    assert claims["ExpirationInDays"] * DAY > max(queue["MessageRetentionPeriod"] for queue in DEAD.values()) + 4 * DAY
    assert table["TimeToLiveSpecification"] == {"AttributeName": "exp", "Enabled": True}
    for name in ("Table", "Bucket", *(name for name in RESOURCES if name.endswith("Secret"))):
        assert RESOURCES[name]["DeletionPolicy"] == "Retain", name


def test_the_journal_cannot_be_taken_back() -> None:
    journal = RESOURCES["JournalBucket"]["Properties"]
    assert journal["VersioningConfiguration"] == {"Status": "Enabled"}
    assert journal["ObjectLockEnabled"] is True
    retention = journal["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention["Mode"] == "COMPLIANCE", "governance mode has those who may pass by it"
    assert retention["Days"] >= 365
    assert set(journal["PublicAccessBlockConfiguration"].values()) == {True}
    assert not [rule for rule in journal["LifecycleConfiguration"]["Rules"] if "Expiration" in str(rule)]
    policy = RESOURCES["JournalBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (kept,) = (one for one in policy if one["Sid"] == "NothingIsTakenOut")
    assert (kept["Effect"], kept["Principal"]) == ("Deny", "*")
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"} <= set(kept["Action"])


def test_buckets_speak_tls_only() -> None:
    buckets = {name for name, body in RESOURCES.items() if body["Type"] == "AWS::S3::Bucket"}
    policies = [body["Properties"] for body in RESOURCES.values() if body["Type"] == "AWS::S3::BucketPolicy"]
    assert {policy["Bucket"]["Ref"] for policy in policies} == buckets
    for policy in policies:
        (tls,) = (one for one in policy["PolicyDocument"]["Statement"] if one["Sid"] == "TlsOnly")
        assert (tls["Effect"], tls["Action"]) == ("Deny", "s3:*")
        assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_only_seal_signs_and_with_two_keys() -> None:
    asymmetric = {name for name, body in RESOURCES.items() if "KeySpec" in body.get("Properties", {})}
    assert asymmetric == {"JournalKey", "CosignerKey"}
    for body in (RESOURCES[name] for name in asymmetric):
        assert body["DeletionPolicy"] == "Retain"
        assert body["Properties"]["KeyUsage"] == "SIGN_VERIFY"
        for statement in body["Properties"]["KeyPolicy"]["Statement"]:
            assert not [action for action in statement["Action"] if "*" in action]
            signs = "kms:Sign" in statement["Action"]
            assert signs == (statement["Principal"] == {"AWS": {"Fn::GetAtt": ["SealFunctionRole", "Arn"]}})
    assert "kms:Sign" not in str([FUNCTIONS[name]["Policies"] for name in FUNCTIONS])


def test_the_journal_is_sealed_every_minute_without_being_asked() -> None:
    schedule = RESOURCES["SealSchedule"]["Properties"]
    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    assert schedule.get("State", "ENABLED") == "ENABLED"
    assert [resource_of(target["Arn"]) for target in schedule["Targets"]] == ["SealQueue"]


def test_no_secret_has_a_value_in_the_template() -> None:
    for body in RESOURCES.values():
        if body["Type"] == "AWS::SecretsManager::Secret":
            assert set(body["Properties"]) == {"Description"}


def test_compose_file_is_pinned_and_on_loopback() -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["localstack"]
    assert service["image"] == "localstack/localstack:4.14.0"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", ["analysis", "dev", "emulator", "runtime", "uv"])
def test_locks_are_hashed_and_name_no_place(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    requirements = [at for at, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]
    assert requirements
    for at in requirements:
        assert "==" in lines[at]
        assert lines[at + 1].strip().startswith("--hash=sha256:")
    assert not [line for line in lines if "://" in line or line.startswith("--")]


def test_functions_run_the_versions_that_tests_run() -> None:
    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.M)
        return dict(found)

    assert pins("runtime").items() <= pins("dev").items()
    assert "boto3" not in pins("runtime")  # Lambda brings it


def test_node_lock_names_no_place() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)
