"""The data of the local Logto: users, applications, sign-ins and tokens.

A restart deletes all data except the users below, whose IDs are fixed.
"""

import hmac
import json
import logging
import re
import secrets
import string
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

FACTORY = "azuread-universal"
SIMULATED_AZURE = {
    "clientId": "simulated",
    "clientSecret": "simulated",
    "tenantId": "common",
    "cloudInstance": "https://login.microsoftonline.com/",
}
BACKCHANNEL_LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_LIFETIME = 120
PERMISSIONS = {"admin": ["*"], "reader": ["read:*"]}
"""What each role grants, as patterns over the scopes of API resources."""

log = logging.getLogger("local_logto")


def random_id(length: int = 12) -> str:
    """Return an ID like those of Logto: lower-case letters and digits."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


@dataclass
class User:
    """A user who can sign in.

    `roles` are names of PERMISSIONS, and `organizations` maps an organization's ID to the roles in
    it. Times are milliseconds since 1970, as in Logto. A user from Microsoft has no `username`.
    """

    id: str
    name: str
    username: str | None = None
    email: str | None = None
    has_picture: bool = False
    roles: Sequence[str] = ("reader",)
    organizations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    suspended: bool = False
    created_at: int = 1767225600000
    updated_at: int = 1767225600000

    def allowed(self, scopes: Iterable[str], organization: str | None = None) -> list[str]:
        """Return the scopes that the user's roles grant, in the organization if one is given."""
        roles = self.organizations[organization] if organization else self.roles
        patterns = [pattern for role in roles for pattern in PERMISSIONS[role]]
        return [scope for scope in scopes if any(fnmatch(scope, item) for item in patterns)]


def example_users() -> dict[str, User]:
    """Return the users of a new stand-in, by username."""
    alice = User("k3v9x0q2m7ae", "Alice Archer", "alice", "alice@example.com", has_picture=True)
    alice.roles = ["admin", "reader"]
    alice.organizations = {"bookclub0001": ["admin"]}
    bob = User("p8d2w5t1z6bo", "Bob Baker", "bob", "bob@example.com")
    bob.organizations = {"bookclub0001": ["reader"]}
    carol = User("c4r7j1n9y3ol", "Carol Chen", "carol", has_picture=True)
    misaki = User("m6s1k8u4h2ya", "山田 美咲", "misaki", "misaki@example.com", has_picture=True)
    misaki.roles = []
    users = (alice, bob, carol, misaki)
    # Logto takes the e-mail from Microsoft's `mail`, which is null for an account without
    # a mailbox.
    microsoft = User("x2f6g9b5v0ms", "Mika Salo")
    return {str(user.username): user for user in users} | {"microsoft": microsoft}


def new_user(name: str, email: str, taken: Mapping[str, User]) -> User:
    """Return a newly registered user, with a username that is not taken."""
    base = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "user"
    username = base
    while username in taken:
        username = f"{base}_{random_id(4)}"
    user = User(random_id(), name[:128], username, email[:128] or None, has_picture=True)
    user.created_at = user.updated_at = int(time.time() * 1000)
    return user


@dataclass(eq=False)
class Application:
    """An application as registered in the Logto Console."""

    id: str
    name: str
    redirect_uris: list[str] = field(default_factory=list)
    post_logout_redirect_uris: list[str] = field(default_factory=list)
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool = False
    type: str = "Traditional"
    secret: str = field(default_factory=lambda: random_id(32))


@dataclass
class Session:
    """A browser that is signed in to Logto, identified by its `_session` cookie."""

    user: User
    sid: str = field(default_factory=lambda: random_id(21))


@dataclass
class Interaction:
    """A sign-in that is not finished, with the parameters of the request to `/oidc/auth`."""

    application: Application
    redirect_uri: str
    state: str | None
    nonce: str | None
    scopes: list[str]
    resources: list[str]
    code_challenge: str
    login_hint: str
    ui_locales: str
    id: str = field(default_factory=lambda: random_id(21))


@dataclass
class Grant:
    """The permission that a finished sign-in gives the app. If revoked, its tokens stop working."""

    interaction: Interaction
    session: Session
    revoked: bool = False

    @property
    def user(self) -> User:
        return self.session.user


@dataclass
class Credential:
    """The data of a code, a refresh token or an opaque access token. Times are in seconds."""

    grant: Grant
    scopes: list[str]
    lifetime: float
    issued_at: float = field(default_factory=time.time)
    used_at: float | None = None

    @property
    def usable(self) -> bool:
        return not self.grant.revoked and time.time() < self.issued_at + self.lifetime


class StandIn:
    """All data of the local Logto. `resources` maps each API resource to its scopes.

    Lifetimes are in seconds. The Management API changes this data, and `machine_app_id` is the
    application that may call this API. For tests, `requests` has the method and path of all
    requests, and `issued` has every code and token.
    """

    endpoint: str
    issuer: str

    def __init__(
        self,
        *,
        app_id: str,
        redirect_uris: Sequence[str] = (),
        post_logout_redirect_uris: Sequence[str] = (),
        backchannel_logout_uri: str | None = None,
        resources: Mapping[str, Sequence[str]] | None = None,
        access_token_lifetime: int = 3600,
        rotate_refresh_tokens: bool = False,
        machine_app_id: str = "local-m2m",
    ) -> None:
        self.application = Application(app_id, app_id, [*redirect_uris])
        self.application.post_logout_redirect_uris += post_logout_redirect_uris
        self.application.backchannel_logout_uri = backchannel_logout_uri
        self.application.backchannel_logout_session_required = backchannel_logout_uri is not None
        self.machine = Application(machine_app_id, "Provisioning", type="MachineToMachine")
        self.applications = {machine_app_id: self.machine, app_id: self.application}
        self.users = example_users()
        self.resources = dict(resources or ())
        self.app_resource: str | None = None
        self.connectors: list[dict[str, Any]] = [
            {"id": "azuread", "connectorId": FACTORY, "config": dict(SIMULATED_AZURE)}
        ]
        self.sign_in_experience: dict[str, Any] = {
            "signInMode": "SignInAndRegister",
            "signIn": {"methods": [{"identifier": "username", "password": True}]},
            "signUp": {"identifiers": ["username"], "password": True, "verify": False},
            "socialSignInConnectorTargets": ["azuread"],
        }
        self.hooks: list[dict[str, Any]] = []
        self.access_token_lifetime = access_token_lifetime
        self.rotate_refresh_tokens = rotate_refresh_tokens
        self.sessions: dict[str, Session] = {}
        self.interactions: dict[str, Interaction] = {}
        self.grants: list[Grant] = []
        self.codes: dict[str, Credential] = {}
        self.refresh_tokens: dict[str, Credential] = {}
        self.access_tokens: dict[str, Credential] = {}
        self.issued: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self.key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)

    @property
    def offers_microsoft(self) -> bool:
        """Whether the sign-in page has the Microsoft button: a connector with an enabled target."""
        enabled = "azuread" in self.sign_in_experience["socialSignInConnectorTargets"]
        return enabled and bool(self.connectors)

    def clear(self) -> None:
        """Delete all settings of an administrator, as in a newly installed Logto."""
        known = self.application
        known.redirect_uris, known.post_logout_redirect_uris = [], []
        known.backchannel_logout_uri, known.backchannel_logout_session_required = None, False
        self.connectors.clear()
        self.resources.clear()
        self.hooks.clear()
        self.sign_in_experience["socialSignInConnectorTargets"] = []

    def suspend(self, username: str) -> None:
        """Suspend a user, end all sessions and tokens of the user, and send the webhooks."""
        with self.lock:
            user = self.users[username]
            user.suspended = True
            for key in [key for key, session in self.sessions.items() if session.user is user]:
                del self.sessions[key]
            for grant in self.grants:
                grant.revoked = grant.revoked or grant.user is user
        self.notify("User.SuspensionStatus.Updated", user)

    def add_hook(self, signing_key: str, **sent: Any) -> dict[str, Any]:
        """Register a webhook. `sent` has its `name`, `events` and `config`, as in Logto."""
        hook = {"id": random_id(21), "enabled": True, "signingKey": signing_key, **sent}
        self.hooks.append(hook)
        return hook

    def notify(self, event: str, user: User) -> None:
        """Send the webhooks of an event, signed as Logto signs them."""
        data = {"id": user.id, "username": user.username, "name": user.name}
        shown = {**data, "primaryEmail": user.email, "isSuspended": user.suspended}
        sent = {"event": event, "createdAt": datetime.now(UTC).isoformat(), "data": shown}
        for hook in self.hooks:
            if hook["enabled"] and event in hook["events"]:
                body = json.dumps({"hookId": hook["id"], **sent}).encode()
                signature = hmac.new(hook["signingKey"].encode(), body, "sha256").hexdigest()
                headers = {"Content-Type": "application/json", "sec-fetch-mode": "cors"}
                headers["logto-signature-sha-256"] = signature
                self.send(hook["config"]["url"], content=body, headers=headers)

    def send(self, url: str, **sent: Any) -> None:
        """Post to the app from another thread, and write the result to the log."""

        def post() -> None:
            # The real Logto drops calls to loopback URLs without a report. The stand-in sends them.
            try:
                response = httpx2.post(url, timeout=5, trust_env=False, **sent)
                log.info("%s: the app responded with %s", url, response.status_code)
            except httpx2.HTTPError as error:
                log.warning("%s cannot be reached (%s)", url, error)

        threading.Thread(target=post, daemon=True).start()

    def end_session(self, key: str) -> None:
        """Sign a browser out and notify its applications (Back-Channel Logout 1.0).

        `key` is the value of its `_session` cookie. As in Logto, refresh tokens with
        `offline_access` stay valid after the session.
        """
        with self.lock:
            session = self.sessions.pop(key)
            ended = [grant for grant in self.grants if grant.session is session]
            for grant in ended:
                grant.revoked = grant.revoked or "offline_access" not in grant.interaction.scopes
        for application in {grant.interaction.application for grant in ended}:
            if application.backchannel_logout_uri:
                claims: dict[str, Any] = {"sub": session.user.id, "aud": application.id}
                claims |= {"jti": random_id(21), "events": {BACKCHANNEL_LOGOUT: {}}}
                if application.backchannel_logout_session_required:
                    claims["sid"] = session.sid
                token = self.sign(claims, LOGOUT_TOKEN_LIFETIME, "logout+jwt")
                self.send(application.backchannel_logout_uri, data={"logout_token": token})

    def sign(self, claims: dict[str, Any], lifetime: int, typ: str | None) -> str:
        """Return the claims with `iss`, `iat` and `exp` as a JWT of `lifetime` seconds."""
        now = int(time.time())
        header = {"alg": "ES384", "kid": self.key.kid} | ({"typ": typ} if typ else {})
        claims = {**claims, "iss": self.issuer, "iat": now, "exp": now + lifetime}
        token = jwt.encode(header, claims, self.key, algorithms=["ES384"], default_type=None)
        self.issued.append(token)
        return token

    def issue(
        self, store: dict[str, Credential], grant: Grant, scopes: list[str], lifetime: float
    ) -> str:
        """Return a new opaque credential (43 characters) and remember it in `store`."""
        value = secrets.token_urlsafe(32)
        store[value] = Credential(grant, scopes, lifetime)
        self.issued.append(value)
        return value
