// A client of NDB for browsers and Node: one connection, any number of requests at once.
//
// Tokens are strings of decimal digits here, never numbers: JavaScript's numbers are doubles, which
// can't hold 64 bits. With the subprotocol ndb.v1.text the server writes them as strings. Treat them
// as secrets. Values are parsed with JSON.parse.

export class NdbError extends Error {}

/** The server refused the request: `status` is the reason, `message` explains it. */
export class Refused extends NdbError {
  constructor(command, body) {
    super(`${command}: ${body.m ?? 'refused'} (status ${body.st})`);
    this.command = command;
    this.status = body.st;
  }
}

/** There is no connection, or it ended before the reply came; the request may have been run. */
export class Lost extends NdbError {}

/** No reply came in time; the request may have been run. The connection stays usable. */
export class TimedOut extends NdbError {}

/** The message that arrived is not the reply to the request. */
export class Unreadable extends NdbError {}

const SUBPROTOCOL = 'ndb.v1.text';
const SUCCESS = new Set([1, 121, 141]);

export class NdbClient {
  #socket;
  #timeout;
  #waiting = []; // Those whose replies are to come, the oldest first.
  #ended = null; // Why there can be no more requests.

  /**
   * Connect to a server.
   * @param {string} url - ws://HOST:PORT/ or wss://…
   * @param {number} options.timeout - the most that opening, and each request, may take, in ms
   * @param {Function} options.WebSocket - the constructor, where there is no global one
   */
  static async open(url, { timeout = 10_000, WebSocket = globalThis.WebSocket } = {}) {
    const client = new NdbClient();
    client.#timeout = timeout;
    const socket = (client.#socket = new WebSocket(url, SUBPROTOCOL));
    socket.onmessage = ({ data }) => client.#receive(data);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => client.#fail(`no connection within ${timeout} ms`), timeout);
      const settled = (settle) => (value) => (clearTimeout(timer), settle(value));
      client.#waiting.push({ reject: settled(reject) }); // The handshake is the first to wait.
      socket.onclose = ({ code, reason }) => client.#end(`the connection ended: ${code} ${reason}`);
      // Node 20 tells of a refused handshake by this event alone.
      socket.onerror = () => client.#end('the connection could not be made, or broke');
      socket.onopen = () => {
        if (socket.protocol !== SUBPROTOCOL) {
          return client.#fail(`the server does not know ${SUBPROTOCOL}`);
        }
        client.#waiting.shift();
        settled(resolve)();
      };
    });
    return client;
  }

  /**
   * Send any command; the methods below are made of this.
   * @returns {Promise<object>} the body of the reply
   */
  request(command, params = {}, { timeout = this.#timeout } = {}) {
    const text = JSON.stringify({ [command]: params });
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) return reject(new Lost(this.#ended));
      const timer = setTimeout(() => {
        // It stays in line: its reply, when it comes, must not be taken for another's.
        reject(new TimedOut(`${command}: no reply within ${timeout} ms`));
      }, timeout);
      const done = (settle) => (value) => (clearTimeout(timer), settle(value));
      this.#waiting.push({ command, resolve: done(resolve), reject: done(reject) });
      this.#socket.send(text);
    });
  }

  /** Close the connection; who still waits for a reply gets `Lost`. */
  async close() {
    if (this.#socket.readyState === 3) return;
    await new Promise((resolve) => {
      this.#socket.addEventListener('close', resolve);
      this.#socket.close(1000);
    });
  }

  #receive(data) {
    if (typeof data !== 'string') return this.#fail('a binary message came');
    // Replies come in the order of the requests.
    const waiting = this.#waiting.shift();
    if (!waiting) return this.#fail('a reply came that nobody asked for');
    const { command, resolve, reject } = waiting;
    let name, body;
    try {
      [[name, body]] = Object.entries(JSON.parse(data));
    } catch {
      return reject(new Unreadable(`${command}: the reply is not JSON`));
    }
    if (!Number.isInteger(body?.st)) {
      reject(new Unreadable(`${command}: the reply has no status`));
    } else if (!SUCCESS.has(body.st)) {
      reject(new Refused(command, body)); // Under whichever name: it may be ERR.
    } else if (name !== `${command}_RSP`) {
      reject(new Unreadable(`${command}: answered by ${name}`));
      this.#fail('a reply came that belongs to another request');
    } else {
      resolve(body);
    }
  }

  #fail(reason) {
    this.#end(reason);
    this.#socket.close();
  }

  #end(reason) {
    this.#ended ??= reason;
    for (const { reject } of this.#waiting.splice(0)) reject(new Lost(this.#ended));
  }

  // Commands. The last parameter of each may be { timeout }, in ms.

  /** Create a session; `expiry` is { duration, deleteSession, extendOnSetAdd, extendOnGet }. */
  async newSession(expiry, options) {
    const params = expiry === undefined ? {} : { expiry };
    return this.session(asText((await this.request('SH_NEW', params, options)).tkn));
  }

  /** The session of a token, whether it exists or not; nothing is sent. */
  session(tkn) {
    return new Session(this, tkn);
  }

  /** The independent keys. */
  get keys() {
    return new Keys(this, 'KV_', {});
  }

  async sessionsExist(tkns, options) {
    return (await this.request('SH_EXISTS', { tkns }, options)).exist.map(asText);
  }

  async endAllSessions(options) {
    return (await this.request('SH_END_ALL', {}, options)).cnt;
  }

  async sessionTotals(options) {
    return withoutStatus(await this.request('SH_INFO_ALL', {}, options));
  }

  /** Save sessions, all or those of `tkns`, as a dataset. */
  async saveSessions(name, tkns, options) {
    return withoutStatus(await this.request('SH_SAVE', { name, tkns }, options));
  }

  async loadSessions(name, options) {
    return withoutStatus(await this.request('SH_LOAD', { name }, options));
  }

  async saveKeys(name, options) {
    return withoutStatus(await this.request('KV_SAVE', { name }, options));
  }

  async loadKeys(name, options) {
    return withoutStatus(await this.request('KV_LOAD', { name }, options));
  }

  async serverInfo(options) {
    return withoutStatus(await this.request('SV_INFO', {}, options));
  }
}

/** Keys with their values: a session's, or the independent ones. */
class Keys {
  #client;
  #prefix;
  #params;

  constructor(client, prefix, params) {
    this.#client = client;
    this.#prefix = prefix;
    this.#params = params;
  }

  run(action, params, options) {
    return this.#client.request(this.#prefix + action, { ...this.#params, ...params }, options);
  }

  async set(keys, options) {
    await this.run('SET', { keys }, options);
  }

  /** Like set, but keys that exist are left as they are. */
  async add(keys, options) {
    await this.run('ADD', { keys }, options);
  }

  /** Those of `keys`, an array, that exist, as an object with their values. */
  async get(keys, options) {
    return (await this.run('GET', { keys }, options)).keys;
  }

  async remove(keys, options) {
    await this.run('RMV', { keys }, options);
  }

  async contains(keys, options) {
    return (await this.run('CONTAINS', { keys }, options)).contains;
  }

  async count(options) {
    return (await this.run('COUNT', {}, options)).cnt;
  }

  async list(options) {
    return (await this.run('KEYS', {}, options)).keys;
  }

  async clear(options) {
    return (await this.run('CLEAR', {}, options)).cnt;
  }

  /** Replace all keys at once; returns how many there were. */
  async clearSet(keys, options) {
    return (await this.run('CLEAR_SET', { keys }, options)).cnt;
  }

  /** Find by a JSONPath; `rsp` is 'keys', 'paths' or 'kv', `keys` are those to search, [] = all. */
  async find(path, rsp, keys = [], options) {
    const body = await this.run('FIND', { path, rsp, keys }, options);
    return rsp === 'paths' ? body.paths : body.keys;
  }

  /** Put `value` wherever a JSONPath selects in the value of `key`; returns at how many places. */
  async update(key, path, value, options) {
    return (await this.run('UPDATE', { key, path, value }, options)).cnt;
  }

  /** Append to the array at `key`, or at its member `name`. */
  async append(key, items, name, options) {
    await this.run('ARR_APPEND', { key, items, name }, options);
  }
}

class Session extends Keys {
  constructor(client, tkn) {
    super(client, 'SH_', { tkn });
    this.tkn = tkn;
  }

  async info(options) {
    return withoutStatus(await this.run('INFO', {}, options));
  }

  async end(options) {
    await this.run('END', {}, options);
  }
}

/** A token as it was received; NemesisDB selects any subprotocol and writes numbers all the same. */
function asText(tkn) {
  if (typeof tkn !== 'string') throw new Unreadable('a token came as a number, which is not exact');
  return tkn;
}

function withoutStatus({ st, ...body }) {
  return body;
}
