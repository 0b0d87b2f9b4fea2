// tus-js-client: a resumable upload, then its transcription.
import fs from 'node:fs';
import * as tus from 'tus-js-client';
import { AUDIO, BASE, KEY, report } from './report.mjs';

const headers = { Authorization: `Bearer ${KEY}` };
const url = await new Promise((resolve, reject) => {
  const upload = new tus.Upload(fs.createReadStream(AUDIO), {
    endpoint: `${BASE}/uploads`,
    headers,
    chunkSize: 50_000,
    onError: reject,
    onSuccess: () => resolve(upload.url),
  });
  upload.start();
});
const body = new URLSearchParams({ upload_id: url.split('/').pop() });
const answer = await fetch(`${BASE}/audio/transcriptions`, { method: 'POST', body, headers });
report('json', (await answer.json()).text);
