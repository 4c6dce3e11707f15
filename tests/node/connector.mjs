// The connector that Logto has for Azure AD, asked for the first address of a sign-in.
//
// Takes a JSON list of configs on standard input; writes a list of {url}, {fields} (those that
// it calls wrong), or {error}, with {asked}: the hosts that it wanted to look something up at.

import { subscribe } from 'node:diagnostics_channel';
import { text } from 'node:stream/consumers';
import createConnector from '@logto/connector-azuread';

let asked = [];
subscribe('http.client.request.start', ({ request }) => asked.push(request.host));

async function outcome(config) {
  asked = [];
  const connector = await createConnector({ getConfig: async () => config });
  const begin = { state: 'state', redirectUri: 'https://bookstore.example/callback/azuread' };
  try {
    return { url: await connector.getAuthorizationUri(begin, async () => {}) };
  } catch (error) {
    if (error.code !== 'invalid_config') return { error: String(error), asked };
    return { fields: error.data.issues.map(({ path }) => path[0]) };
  }
}

const outcomes = [];
for (const config of JSON.parse(await text(process.stdin))) outcomes.push(await outcome(config));
process.stdout.write(JSON.stringify(outcomes));
