// Asks the Azure AD connector of Logto for the first URL of a sign-in.
//
// Reads a JSON list of configs from standard input, and writes a JSON list of results:
// {url}, {fields} with the invalid fields, or {error, asked} with the hosts that it tried to call.

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
