"""Data keys against a KMS and a table: made once, cached for minutes, destroyed for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from tocsin.aws.data_keys import MAX_CACHE_MS, ROTATE_AFTER_MS, KmsKeyRing
from tocsin.aws.keys import Key
from tocsin.aws.table import Table
from tocsin.kernel.errors import Refusal
from tocsin.kernel.sealing import DataKey, Sealer, key_id, seal, unseal

NOW = 1_790_000_000_000


class CountingKms:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[str] = []

    def generate_data_key(self, **arguments: Any) -> Any:
        self.calls.append("generate")
        return self._client.generate_data_key(**arguments)

    def decrypt(self, **arguments: Any) -> Any:
        self.calls.append("decrypt")
        return self._client.decrypt(**arguments)


class World:
    """One deployment; every ring() is another process of it."""

    def __init__(self) -> None:
        dynamo = boto3.client("dynamodb", region_name="us-east-1")
        dynamo.create_table(
            TableName="data-keys",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        client = boto3.client("kms", region_name="us-east-1")
        self.master = client.create_key()["KeyMetadata"]["KeyId"]
        self.kms = CountingKms(client)
        self.table = Table(dynamo, "data-keys")
        self.now = NOW

    def ring(self) -> KmsKeyRing:
        return KmsKeyRing(self.table, lambda: self.kms, self.master, lambda: self.now)


@pytest.fixture
def world() -> Iterator[World]:
    with mock_aws():
        yield World()


def test_what_one_process_seals_another_opens(world: World) -> None:
    sealed = Sealer(world.ring()).seal("demo", b"secret", "segment", "1")
    assert b"secret" not in sealed
    assert Sealer(world.ring()).open("demo", sealed, "segment", "1") == b"secret"


def test_kms_is_asked_once_in_five_minutes(world: World) -> None:
    ring = world.ring()
    sealer = Sealer(ring)
    for _ in range(50):
        sealer.open("demo", sealer.seal("demo", b"x"))
    assert world.kms.calls == ["generate"]
    world.now += MAX_CACHE_MS
    for _ in range(50):
        sealer.open("demo", sealer.seal("demo", b"x"))
    assert world.kms.calls == ["generate", "decrypt"]


def test_a_wrapped_key_opens_for_its_own_project_only(world: World) -> None:
    key = world.ring().current("demo")
    row = world.table.get(Key("demo", key.key_id))
    assert row is not None
    world.table.put(Key("other", key.key_id), {"w": row["w"], "at": row["at"]})
    with pytest.raises(Exception, match="InvalidCiphertext"):
        world.ring().named("other", key.key_id)


def test_sealed_bytes_belong_to_one_project_and_place(world: World) -> None:
    sealer = Sealer(world.ring())
    sealed = sealer.seal("demo", b"secret", "segment", "1")
    with pytest.raises(ValueError, match="belong elsewhere"):
        sealer.open("demo", sealed, "segment", "2")
    with pytest.raises(Refusal):
        sealer.open("other", sealed, "segment", "1")


def test_an_old_key_is_followed_by_a_new_one_and_still_opens(world: World) -> None:
    old = Sealer(world.ring()).seal("demo", b"old")
    world.now += ROTATE_AFTER_MS
    new = Sealer(world.ring()).seal("demo", b"new")
    assert key_id(old) != key_id(new)
    assert Sealer(world.ring()).open("demo", old) == b"old"
    assert key_id(Sealer(world.ring()).seal("demo", b"newer")) == key_id(new)


def test_destroyed_keys_are_gone_and_no_new_one_is_made(world: World) -> None:
    busy = Sealer(world.ring())
    sealed = busy.seal("demo", b"secret")
    kept = busy.seal("other", b"kept")
    assert world.ring().destroy("demo") == 1
    assert world.ring().destroy("demo") == 0
    for attempt in (lambda: Sealer(world.ring()).open("demo", sealed), lambda: world.ring().current("demo")):
        with pytest.raises(Refusal) as refused:
            attempt()
        assert refused.value.code == "ERR_PROJECT_DELETED"
    assert busy.open("demo", sealed) == b"secret"  # from its cache, for five minutes at most
    world.now += MAX_CACHE_MS
    with pytest.raises(Refusal):
        busy.open("demo", sealed)
    assert busy.open("other", kept) == b"kept"
    assert [row["sk"] for row in world.table.query("demo")] == ["~destroyed"]


def test_a_key_that_is_made_while_its_project_is_deleted_never_comes_to_be(world: World) -> None:
    slow = world.ring()
    generate = world.kms.generate_data_key

    def after_deletion(**arguments: Any) -> Any:
        answer = generate(**arguments)
        world.ring().destroy("demo")
        return answer

    world.kms.generate_data_key = after_deletion  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        slow.current("demo")
    assert refused.value.code == "ERR_PROJECT_DELETED"
    assert [row["sk"] for row in world.table.query("demo")] == ["~destroyed"]


KEY = DataKey("key_1", bytes(range(32)))


@given(st.binary(max_size=300), st.data())
def test_every_byte_counts(plain: bytes, data: st.DataObject) -> None:
    sealed = seal(KEY, plain, "demo", "segment")
    assert (key_id(sealed), unseal(KEY, sealed, "demo", "segment")) == (KEY.key_id, plain)
    at = data.draw(st.integers(2, len(sealed) - 1))
    bent = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    with pytest.raises(ValueError, match="damaged"):
        unseal(KEY, bent, "demo", "segment")
    with pytest.raises(ValueError, match="not sealed"):
        key_id(sealed[: data.draw(st.integers(0, 2 + len(KEY.key_id) + 11))])


def test_a_key_does_not_show_itself() -> None:
    assert "material" not in repr(KEY)
    assert KEY.material.hex() not in repr(KEY)
