"""Access tokens for the API of a baked app: valid tokens as Logto issues them, and forgeries."""

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
    """Return the claims of an access token of Logto, changed by `changes`.

    A change to None removes the claim.
    """
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
    """Return an access token as Logto issues it, with these changes to its claims."""
    return logto.signed({"typ": "at+jwt"} | (header or {}), claims(logto, **changes), key)


def with_claims(**changes: Any) -> Token:
    """Return a function that makes a token with these claims. Times are in seconds from now."""

    def build(logto: Logto) -> str:
        now = int(time.time())
        times = {n: now + v for n, v in changes.items() if n in TIMES and type(v) is int}
        return token(logto, **(changes | times))

    return build


TIMES = ("iat", "nbf", "exp")


def with_header(**header: Any) -> Token:
    """Return a function that makes a token with this header, signed with Logto's key."""
    return lambda logto: raw(logto, header=json.dumps(complete_header(logto) | header))


def complete_header(logto: Logto) -> dict[str, Any]:
    """Return the header of an access token as Logto writes it."""
    return {"alg": "ES384", "kid": logto.local.key.kid, "typ": "at+jwt"}


def raw(logto: Logto, header: str | None = None, payload: str | bytes | None = None) -> str:
    """Return a token with exactly this header and payload, correctly signed with Logto's key."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA384

    payload = json.dumps(claims(logto)) if payload is None else payload
    payload = payload.encode() if isinstance(payload, str) else payload
    text = f"{encoded((header or json.dumps(complete_header(logto))).encode())}.{encoded(payload)}"
    key = logto.local.key.get_op_key("sign")
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA384())))
    return f"{text}.{encoded(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def encoded(content: bytes) -> str:
    """Return bytes in base64url without padding, as a part of a JWT (RFC 7515, 2)."""
    return urlsafe_b64encode(content).decode().rstrip("=")


def forged(**header: Any) -> Token:
    """Return a function that makes a token signed with the attacker's key."""
    return lambda logto: token(logto, header, ATTACKER_KEY)


ATTACKER_KEY = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
ATTACKER_P256_KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def with_attacker_key_urls(logto: Logto) -> str:
    """Return a token whose header names the URL of the attacker's key.

    The app must not fetch that URL.
    """
    url = f"{logto.endpoint}/attacker"
    public = ATTACKER_KEY.as_dict(private=False)
    header = {"jku": url, "x5u": url, "jwk": public, "kid": ATTACKER_KEY.kid}
    # joserfc refuses these header parameters unless their values have the right form.
    return token(logto, header, ATTACKER_KEY)


def hmac_with_the_public_key(logto: Logto) -> str:
    """Return a token for an algorithm confusion attack: the public key is the HMAC secret."""
    secret = logto.local.key.as_pem(private=False)
    header = complete_header(logto) | {"alg": "HS256"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims(logto)))
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def unsigned(name: str) -> Token:
    """Return a function that makes a token without a signature, with this `alg`."""

    def build(logto: Logto) -> str:
        header = complete_header(logto) | {"alg": name}
        return ".".join(encoded(json.dumps(p).encode()) for p in (header, claims(logto))) + "."

    return build


def signature(change: Callable[[str], str]) -> Token:
    """Return a function that makes a valid token and changes its signature."""

    def build(logto: Logto) -> str:
        text, _, signed = token(logto).rpartition(".")
        return f"{text}.{change(signed)}"

    return build


def other_scopes(logto: Logto) -> str:
    """Return a token with the claims of one token and the signature of another."""
    weak, strong = token(logto, scope="read:books").split("."), token(logto).split(".")
    return ".".join([strong[0], strong[1], weak[2]])


def id_token(logto: Logto) -> str:
    """Return an ID token as `/oidc/token` gives it to the web app."""
    changes = {"aud": "test-app", "name": "Alice Archer", "scope": None, "client_id": None}
    return logto.signed({}, claims(logto, **changes))
