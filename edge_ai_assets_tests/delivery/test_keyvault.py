"""Signing with a key in a vault: a stub that answers as Azure Key Vault does."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from edge_ai_assets.delivery import ceremony, keyring, signing
from edge_ai_assets.delivery.authority import Authority
from edge_ai_assets.delivery.errors import KeyFileError
from edge_ai_assets.delivery.keyring import Keyring
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.resources.identity import keyvault

ADDRESS = "https://edge.vault.azure.net/keys/targets/0123456789abcdef"


class Stub:
    """Of `CryptographyClient`: takes a digest of 32 bytes, gives r and s side by side (RFC 7518, 3.4)."""

    def __init__(self):
        self.private, self.asked = ec.generate_private_key(ec.SECP256R1()), []
        numbers = self.private.public_key().public_numbers()
        self.x, self.y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))

    def sign(self, algorithm, digest):
        assert algorithm == "ES256" and len(digest) == 32
        self.asked.append(digest)
        made = self.private.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        r, s = utils.decode_dss_signature(made)
        return SimpleNamespace(signature=r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def keys(tmp_path, stub):
    public = keyvault.pem_of(ADDRESS, "P-256", stub.x, stub.y)
    vault = {"vaulted": (ADDRESS, public)}
    ceremony.make(tmp_path / "azure", ceremony.Roles(targets=("vaulted",), vault=vault))
    return tmp_path / "azure"


@pytest.fixture
def authority(keys, stub):
    ring = Keyring([keys], lambda address, key: keyvault.signer(address, key, stub))
    return Authority(ceremony.first_root(keys), ring)


def test_a_site_takes_what_the_vault_signed(authority, publish, registry, tmp_path, stub):
    made = publish(registry, authority=authority)
    store = SiteStore(tmp_path / "site")
    assert store.fetch(registry, Trust(authority.root, store.layout)) == made
    assert len(stub.asked) == 1 and b"PRIVATE" not in (tmp_path / "azure" / "vaulted.vault.json").read_bytes()


def test_the_real_client_takes_what_is_given_it(stub, monkeypatch):
    """The contract of azure-keyvault-keys: the names and kinds of `sign`'s arguments."""
    crypto = pytest.importorskip("azure.keyvault.keys.crypto")
    import inspect

    names = list(inspect.signature(crypto.CryptographyClient.sign).parameters)
    assert names[:3] == ["self", "algorithm", "digest"]
    assert crypto.SignatureAlgorithm(keyvault.ALGORITHM) is crypto.SignatureAlgorithm.es256
    assert "signature" in crypto.SignResult("k", crypto.SignatureAlgorithm.es256, b"s").__dict__


def test_without_the_vault_nothing_is_released(keys, publish, registry):
    class Away:
        def sign(self, algorithm, digest):
            raise ConnectionError("the vault is out of reach")

    ring = Keyring([keys], lambda address, key: keyvault.signer(address, key, Away()))
    with pytest.raises(KeyFileError, match="key vaulted does not sign: the vault is out of reach"):
        publish(registry, authority=Authority(ceremony.first_root(keys), ring))
    assert not registry.tags()


def test_a_signature_of_another_length_is_refused(keys, publish, registry):
    class Wrong:
        def sign(self, algorithm, digest):
            return SimpleNamespace(signature=hashlib.sha256(digest).digest())

    ring = Keyring([keys], lambda address, key: keyvault.signer(address, key, Wrong()))
    with pytest.raises(KeyFileError, match="32 bytes, it must be 64"):
        publish(registry, authority=Authority(ceremony.first_root(keys), ring))


@pytest.mark.parametrize("curve", ["P-384", "P-256K", "KeyCurveName.p_384"])
def test_a_key_of_another_curve_is_refused(curve, stub):
    with pytest.raises(KeyFileError, match="it must be P-256"):
        keyvault.pem_of(ADDRESS, curve, stub.x, stub.y)


def test_a_key_that_no_vault_signs_with_is_refused(tmp_path):
    signing.create(tmp_path, "file")
    key = Keyring([tmp_path]).keys()["file"]
    with pytest.raises(KeyFileError, match="'ed25519', a vault's key must be"):
        keyvault.signer(ADDRESS, key, Stub())


def test_a_name_is_taken_once(tmp_path, stub):
    public = keyvault.pem_of(ADDRESS, "P-256", stub.x, stub.y)
    tmp_path.joinpath("k").mkdir()
    keyring.add_vault_key(tmp_path / "k", "one", ADDRESS, public)
    with pytest.raises(KeyFileError, match="has a key 'one' already"):
        keyring.add_vault_key(tmp_path / "k", "one", ADDRESS, public)
