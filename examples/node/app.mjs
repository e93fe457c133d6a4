// An app whose PubNub client always has the sidecar's current token.
//
//   npm ci && PAMSIDECAR_SOCKET=.pamsidecar-dev/token/token.sock node app.mjs NAME CHANNEL
import { createHash } from 'node:crypto';
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import PubNub from 'pubnub';

const socketPath = process.env.PAMSIDECAR_SOCKET ?? '/run/pamsidecar/token.sock';
const [name = 'checkout', channel = 'orders'] = process.argv.slice(2);
let pubnub, current; // current is the token document in use; without one the app leaves PubNub alone

for (let etag = ''; ; ) {
  const { status, headers, body } = await get(`/v1/tokens/${encodeURIComponent(name)}?wait=30s`, etag);
  if (status === 200) {
    etag = headers.etag;
    if (!pubnub) {
      pubnub = await connect(body);
      publish();
    } else {
      pubnub.setToken(body.token);
      pubnub.disconnect(true); // ends the long poll that has the old token; true: without announcing that we left
      pubnub.reconnect(); // goes on where it was. Alone it does nothing while a long poll runs.
    }
    current = body;
    const id = createHash('sha256').update(body.token).digest('hex').slice(0, 8); // the token itself belongs in no log
    console.log(`generation ${body.generation}  token #${id}`);
  } else if (status !== 304) { // 304: nothing new within the wait
    etag = '';
    current = undefined;
    pubnub?.disconnect();
    console.log(`no token: ${status} ${body.code}: ${body.detail} (${body.reason ?? ''})`);
    await pause(5000); // the wait holds a 503 as well; a 410 comes at once
  }
}

// get asks the sidecar until it answers. While it restarts, what is in use stays good.
async function get(path, etag = '') {
  for (;; await pause(1000)) {
    try {
      const response = await new Promise((resolve, reject) => {
        http.get({ socketPath, path, headers: { 'If-None-Match': etag }, timeout: 60_000 }, resolve)
          .on('error', reject).on('timeout', function () { this.destroy(new Error('timeout')); });
      });
      let text = '';
      for await (const part of response.setEncoding('utf8')) text += part;
      return { status: response.statusCode, headers: response.headers, body: text && JSON.parse(text) };
    } catch (error) {
      console.log(`the sidecar does not answer: ${error.message}`);
    }
  }
}

async function connect({ token, authorized_uuid: uuid }) {
  const { publish_key: publishKey, subscribe_key: subscribeKey, origin } = (await get('/v1/keyset')).body;
  const { host, protocol } = new URL(origin);
  const userId = uuid ?? name; // the token's UUID: any other user ID gets 403
  const options = { publishKey, subscribeKey, userId, origin: host, ssl: protocol === 'https:' };
  const client = new PubNub({ ...options, heartbeatInterval: 120 }); // 0 makes reconnect() send a heartbeat that gets 403
  client.addListener({ message: ({ message }) => console.log('received', message) });
  client.setToken(token);
  client.subscribe({ channels: [channel] });
  return client;
}

async function publish() {
  for (let n = 1; ; await pause(1000)) {
    if (!current) continue;
    const message = `${n} from ${name} with generation ${current.generation}`;
    try {
      await pubnub.publish({ channel, message });
      console.log('published', message);
      n += 1;
    } catch (error) {
      console.log('publish failed:', error.status?.statusCode ?? error.message);
    }
  }
}
