"""Access tokens for the API of a baked app: as Logto gives them, and forged ones."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from joserfc.jwk import ECKey
from sites import FaultyLogto

API = "https://api.bookstore.example"
SCOPES = ["read:books", "write:books"]
USER = "k3v9x0q2m7ae"
CLIENT = "mobile-app"

Logto = FaultyLogto
Token = Callable[[Logto], str]


def claims(logto: Logto, **changes: Any) -> dict[str, Any]:
    """The claims of an access token of Logto; a change to None leaves the claim out."""
    now = int(time.time())
    standard = {
        "jti": f"jti-{time.monotonic_ns()}",
        "sub": USER,
        "iat": now,
        "exp": now + 3600,
        "scope": " ".join(SCOPES),
        "client_id": CLIENT,
        "iss": logto.issuer,
        "aud": API,
    }
    return {name: value for name, value in (standard | changes).items() if value is not None}


def token(
    logto: Logto, header: dict[str, Any] | None = None, key: Any = None, **changes: Any
) -> str:
    """An access token of Logto, but for the changes."""
    return logto.signed({"typ": "at+jwt"} | (header or {}), claims(logto, **changes), key)


def with_claims(**changes: Any) -> Token:
    """A token with these claims; times in seconds from now."""

    def build(logto: Logto) -> str:
        now = int(time.time())
        times = {n: now + v for n, v in changes.items() if n in TIMES and type(v) is int}
        return token(logto, **(changes | times))

    return build


TIMES = ("iat", "nbf", "exp")


def with_header(**header: Any) -> Token:
    """A token under this header, signed with Logto's key."""
    return lambda logto: raw(logto, header=json.dumps(whole_header(logto) | header))


def whole_header(logto: Logto) -> dict[str, Any]:
    return {"alg": "ES384", "kid": logto.local.key.kid, "typ": "at+jwt"}


def raw(logto: Logto, header: str | None = None, payload: str | bytes | None = None) -> str:
    """A token of these very texts, rightly signed with Logto's key."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA384

    payload = json.dumps(claims(logto)) if payload is None else payload
    payload = payload.encode() if isinstance(payload, str) else payload
    text = f"{encoded((header or json.dumps(whole_header(logto))).encode())}.{encoded(payload)}"
    key = logto.local.key.get_op_key("sign")
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA384())))
    return f"{text}.{encoded(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def forged(**header: Any) -> Token:
    """A token that somebody else has signed with a key of their own."""
    return lambda logto: token(logto, header, ATTACKER_KEY)


ATTACKER_KEY = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
ATTACKER_P256_KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def with_attacker_key_urls(logto: Logto) -> str:
    """The header says where their key is; the app must not look there."""
    place = f"{logto.endpoint}/theirs"
    public = ATTACKER_KEY.as_dict(private=False)
    where = {"jku": place, "x5u": place, "jwk": public, "kid": ATTACKER_KEY.kid}
    # joserfc knows what these are for, and would not have them otherwise.
    return token(logto, where, ATTACKER_KEY)


def hmac_with_the_public_key(logto: Logto) -> str:
    """Algorithm confusion: the public key as if it were a shared secret."""
    secret = logto.local.key.as_pem(private=False)
    header = whole_header(logto) | {"alg": "HS256"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims(logto)))
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def unsigned(name: str) -> Token:
    def build(logto: Logto) -> str:
        header = whole_header(logto) | {"alg": name}
        return ".".join(encoded(json.dumps(p).encode()) for p in (header, claims(logto))) + "."

    return build


def signature(change: Callable[[str], str]) -> Token:
    def build(logto: Logto) -> str:
        text, _, signed = token(logto).rpartition(".")
        return f"{text}.{change(signed)}"

    return build


def other_scopes(logto: Logto) -> str:
    """The signature of one token under the claims of another."""
    weak, strong = token(logto, scope="read:books").split("."), token(logto).split(".")
    return ".".join([strong[0], strong[1], weak[2]])


def id_token(logto: Logto) -> str:
    """As `/oidc/token` gives it to the web app."""
    given = {"aud": "test-app", "name": "Alice Archer", "scope": None, "client_id": None}
    return logto.signed({}, claims(logto, **given))
