// The npm package eventsource, which reconnects as browsers do, at the events of a job.
import fs from 'node:fs';
import { EventSource } from 'eventsource';
import { AUDIO, BASE, KEY, ROOT, report } from './report.mjs';

const headers = { Authorization: `Bearer ${KEY}` };
const form = new FormData();
form.append('file', new Blob([fs.readFileSync(AUDIO)]), 'meeting.wav');
const made = await fetch(`${BASE}/jobs`, { method: 'POST', body: form, headers });
const { id } = await made.json();

const withKey = (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } });
const source = new EventSource(`${BASE}/jobs/${id}/events`, { fetch: withKey });
const texts = [];
let endings = 0;
source.addEventListener('segment', (event) => texts.push(JSON.parse(event.data).text));
source.addEventListener('done', () => (endings += 1));
// A client that has the last event reconnects; 204 tells it to stop.
await new Promise((resolve) => {
  source.addEventListener('error', () => source.readyState === source.CLOSED && resolve());
  setTimeout(resolve, 60_000);
});
source.close();
if (endings === 1) report('events', texts.join(' '));
else console.error(`the end was sent ${endings} times, or the client never stopped`);
process.exit(endings === 1 ? 0 : 1);
