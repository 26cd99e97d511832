// A certified OpenID provider on a free loopback port, set up as an operator would for
// holdpoint: JWT access tokens for its audience, a public client for people, a
// confidential one each for the console and for an agent. It ends when its standard input does.
//
//   node issuer.mjs NODE_MODULES
//
// prints {"issuer": …, "agent": …, "secret": …} when it is ready.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const AUDIENCE = 'api://holdpoint';
const SCOPES = 'holdpoint.connect holdpoint.review';

const modules = resolve(process.argv[2]);
const { default: Provider } = await import(
  pathToFileURL(`${modules}/oidc-provider/lib/index.js`)
);

// The issuer's name has its port in it, so it listens first.
let handler = (request, response) => response.writeHead(503).end();
const server = createServer((request, response) => handler(request, response));
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const secret = randomBytes(24).toString('base64url');

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...key.export({ format: 'jwk' }), kid: 'k1', use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
  pkce: { required: () => true },
  clients: [
    {
      client_id: 'holdpoint-cli',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: [
        'authorization_code',
        'refresh_token',
        'urn:ietf:params:oauth:grant-type:device_code',
      ],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
    {
      // Native only so that any loopback port will do; what counts is its secret.
      client_id: 'holdpoint-console',
      client_secret: secret,
      application_type: 'native',
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/console/callback'],
    },
    {
      client_id: 'robot',
      client_secret: secret,
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: async (context, client) => client.grantTypeAllowed('refresh_token'),
  extraTokenClaims: (context, token) => ({
    groups: token.kind === 'ClientCredentials' ? [] : ['agents'],
  }),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => AUDIENCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: SCOPES,
        audience: AUDIENCE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});
handler = provider.callback();

console.log(JSON.stringify({ issuer, agent: 'robot', secret }));
process.stdin.on('end', () => process.exit(0)).resume();
