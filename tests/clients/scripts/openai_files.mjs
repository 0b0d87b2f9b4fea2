// The npm package openai: recordings, streamed and not.
import assert from 'node:assert';
import fs from 'node:fs';
import OpenAI from 'openai';
import { AUDIO, BASE, KEY, report } from './report.mjs';

const client = new OpenAI({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const file = () => fs.createReadStream(AUDIO);

report('json', (await client.audio.transcriptions.create({ model: 'whisper-1', file: file() })).text);

const verbose = await client.audio.transcriptions.create({
  model: 'whisper-1',
  file: file(),
  response_format: 'verbose_json',
  timestamp_granularities: ['word', 'segment'],
});
report('words', verbose.words.map((word) => word.word).join(' '));

const stream = await client.audio.transcriptions.create({
  model: 'gpt-4o-transcribe',
  file: file(),
  stream: true,
});
let text = '';
for await (const event of stream) {
  if (event.type === 'transcript.text.delta') text += event.delta;
  if (event.type === 'transcript.text.done') assert.equal(event.text, text);
}
report('stream', text);
