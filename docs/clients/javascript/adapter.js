// Lets ndb-conformance control the client: each line is a command, and each answer its result.

import { NdbClient, Refused, Lost, TimedOut, Unreadable } from './ndb.js';

const COMMANDS = {
  SH_NEW: (client, p, o) => client.newSession(p.expiry, o).then(({ tkn }) => ({ tkn })),
  SH_END: (client, p, o) => client.session(p.tkn).end(o).then(() => ({})),
  SH_END_ALL: (client, p, o) => client.endAllSessions(o).then((cnt) => ({ cnt })),
  SH_EXISTS: (client, p, o) => client.sessionsExist(p.tkns, o).then((exist) => ({ exist })),
  SH_INFO: (client, p, o) => client.session(p.tkn).info(o),
  SH_INFO_ALL: (client, p, o) => client.sessionTotals(o),
  SH_SAVE: (client, p, o) => client.saveSessions(p.name, p.tkns, o),
  SH_LOAD: (client, p, o) => client.loadSessions(p.name, o),
  KV_SAVE: (client, p, o) => client.saveKeys(p.name, o),
  KV_LOAD: (client, p, o) => client.loadKeys(p.name, o),
  SV_INFO: (client, p, o) => client.serverInfo(o),
};

const ON_KEYS = {
  SET: (keys, p, o) => keys.set(p.keys, o).then(() => ({})),
  ADD: (keys, p, o) => keys.add(p.keys, o).then(() => ({})),
  GET: (keys, p, o) => keys.get(p.keys, o).then((found) => ({ keys: found })),
  RMV: (keys, p, o) => keys.remove(p.keys, o).then(() => ({})),
  CONTAINS: (keys, p, o) => keys.contains(p.keys, o).then((contains) => ({ contains })),
  COUNT: (keys, p, o) => keys.count(o).then((cnt) => ({ cnt })),
  KEYS: (keys, p, o) => keys.list(o).then((names) => ({ keys: names })),
  CLEAR: (keys, p, o) => keys.clear(o).then((cnt) => ({ cnt })),
  CLEAR_SET: (keys, p, o) => keys.clearSet(p.keys, o).then((cnt) => ({ cnt })),
  FIND: (keys, p, o) =>
    keys
      .find(p.path, p.rsp, p.keys, o)
      .then((found) => (p.rsp === 'paths' ? { paths: found } : { keys: found })),
  UPDATE: (keys, p, o) => keys.update(p.key, p.path, p.value, o).then((cnt) => ({ cnt })),
  ARR_APPEND: (keys, p, o) => keys.append(p.key, p.items, p.name, o).then(() => ({})),
};

for (const [action, run] of Object.entries(ON_KEYS)) {
  COMMANDS[`SH_${action}`] = (client, p, o) => run(client.session(p.tkn), p, o);
  COMMANDS[`KV_${action}`] = (client, p, o) => run(client.keys, p, o);
}

const KINDS = [
  [Refused, 'refused'],
  [Lost, 'lost'],
  [TimedOut, 'timeout'],
  [Unreadable, 'unreadable'],
];

function described(error) {
  const [, kind] = KINDS.find(([type]) => error instanceof type) ?? [null, String(error.stack)];
  return { error: kind, status: error.status, message: error.message };
}

let client;

async function run({ call, url, params, timeout }) {
  if (call === 'open') {
    client = undefined;
    client = await NdbClient.open(url);
  } else if (call === 'close') {
    await client?.close();
  } else {
    const options = timeout === undefined ? {} : { timeout: timeout * 1000 };
    return COMMANDS[call](client, params, options);
  }
  return {};
}

/** Do what a line says; does not wait for what earlier lines asked for. */
export async function obey(line, answer) {
  const { id, ...what } = JSON.parse(line);
  try {
    answer(JSON.stringify({ id, result: await run(what) }));
  } catch (error) {
    answer(JSON.stringify({ id, ...described(error) }));
  }
}
