// ndb-conformance --client 'node --experimental-websocket conformance.js'

import { createInterface } from 'node:readline';
import { obey } from './adapter.js';

for await (const line of createInterface({ input: process.stdin })) {
  obey(line, console.log);
}
