// The engine of Logto, the npm package oidc-provider, with the configuration that Logto uses:
// all routes under /oidc, ES384 keys, always PKCE with S256, consent without a page, and a
// userinfo response with times in milliseconds and null for each claim without a value.
//
// Usage: node provider.mjs '{"port": 3001, "clientId": "...", ...}'. The object `options` below
// lists all keys and their defaults. The provider signs in one fixed account without a page, and
// writes a line of JSON to standard output for each event that a test can check.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { errors, Provider } from 'oidc-provider';

const options = {
  port: 3001,
  clientId: 'bookstore',
  clientSecret: 'secret',
  redirectUri: 'http://localhost:3000/callback',
  postLogoutRedirectUri: 'http://localhost:3000/',
  accessTokenSeconds: 3600,
  resource: 'https://api.bookstore.example/',
  resourceScopes: 'read:books write:books',
  ...JSON.parse(process.argv[2] ?? '{}'),
};

const origin = `http://localhost:${options.port}`;
const say = (event, details = {}) => process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);

const account = {
  sub: 'ada1815',
  name: 'Ada Lovelace',
  username: 'ada',
  preferred_username: 'ada',
  picture: null,
  email: 'ada@bookstore.example',
  email_verified: true,
  created_at: 1_700_000_000_000,
  updated_at: 1_710_000_000_000,
};

const signingKey = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`${origin}/oidc`, {
  jwks: { keys: [{ ...signingKey, use: 'sig', alg: 'ES384' }] },
  cookies: {
    keys: ['a key for the length of one test run'],
    long: { signed: true },
    short: { signed: true },
  },
  clients: [{
    client_id: options.clientId,
    client_secret: options.clientSecret,
    redirect_uris: [options.redirectUri],
    post_logout_redirect_uris: [options.postLogoutRedirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    id_token_signed_response_alg: 'ES384',
  }],
  enabledJWA: { idTokenSigningAlgValues: ['ES384'] },
  pkce: { required: () => true },
  // Logto puts the claims of userinfo into the ID token, too.
  conformIdTokenClaims: false,
  claims: {
    openid: ['sub'],
    profile: ['name', 'username', 'preferred_username', 'picture', 'created_at', 'updated_at'],
    email: ['email', 'email_verified'],
  },
  extraParams: ['first_screen', 'direct_sign_in', 'interaction_mode'],
  findAccount: (_context, sub) => (sub === account.sub
    ? { accountId: sub, claims: async () => account }
    : undefined),
  interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
  renderError: (context, error) => {
    context.body = { code: `oidc.${error.error}`, ...error };
  },
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (context, form) => {
        const inputs = '<input type="hidden" name="logout" value="yes"/></form>';
        context.body = `<!doctype html>${form.replace('</form>', inputs)}<script>document.forms[0].submit()</script>`;
      },
    },
    resourceIndicators: {
      enabled: true,
      // No default resource: the userinfo endpoint needs an opaque token, without a resource.
      defaultResource: () => undefined,
      useGrantedResource: () => false,
      getResourceServerInfo: (_context, indicator) => {
        if (indicator !== options.resource) {
          throw new errors.InvalidTarget();
        }
        return {
          accessTokenFormat: 'jwt',
          accessTokenTTL: options.accessTokenSeconds,
          jwt: { sign: { alg: 'ES384' } },
          scope: options.resourceScopes,
        };
      },
    },
  },
  ttl: {
    AccessToken: options.accessTokenSeconds,
    AuthorizationCode: 60,
    Grant: 1_209_600,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 1_209_600,
    Session: 1_209_600,
  },
});

async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  const result = {};
  if (prompt.name === 'login') {
    say('interaction', {
      firstScreen: params.first_screen, directSignIn: params.direct_sign_in, locales: params.ui_locales,
    });
    result.login = { accountId: account.sub };
  } else {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    for (const resource of [params.resource ?? []].flat()) {
      grant.addResourceScope(resource, options.resourceScopes);
    }
    result.consent = { grantId: await grant.save() };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

provider.on('grant.success', (context) => say('grant', { type: context.oidc.params.grant_type }));
provider.on('grant.error', (context, error) => say('grant refused', {
  type: context.oidc.params?.grant_type, error: error.error, detail: error.error_detail,
}));
provider.on('userinfo.error', (_context, error) => say('userinfo refused', { error: error.error }));
provider.on('end_session.success', () => say('signed out'));
provider.on('server_error', (_context, error) => say('server error', { stack: error.stack }));

const respond = provider.callback();
createServer((request, response) => {
  if (request.url.startsWith('/interaction/')) {
    interact(request, response).catch((error) => {
      say('server error', { stack: error.stack });
      response.writeHead(500).end();
    });
  } else if (request.url.startsWith('/oidc/')) {
    // The engine has no setting for a prefix. It finds the prefix in `originalUrl`.
    request.originalUrl = request.url;
    request.url = request.url.slice('/oidc'.length);
    respond(request, response);
  } else {
    response.writeHead(404).end();
  }
}).listen(options.port, 'localhost', () => say('listening', { origin }));
