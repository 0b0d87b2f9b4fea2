// The npm package openai: a live session over its WebSocket class.
import assert from 'node:assert';
import fs from 'node:fs';
import net from 'node:net';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { AUDIO_24K, BASE, KEY, ROOT, report } from './report.mjs';

const client = new OpenAI({ baseURL: BASE, apiKey: KEY });
const { hostname, port } = new URL(ROOT);
// The package always says wss, so the connection goes past its TLS.
const options = { createConnection: () => net.connect(Number(port), hostname) };
const socket = new OpenAIRealtimeWS({ model: 'gpt-4o-transcribe', options }, client);
const texts = new Map();
let cleared = false;

socket.on('error', (error) => {
  assert.equal(error.error?.code, 'input_audio_buffer_commit_empty', String(error));
});
socket.on('event', (event) => {
  if (event.type === 'input_audio_buffer.committed') texts.set(event.item_id, null);
  if (event.type === 'input_audio_buffer.cleared') cleared = true;
  if (event.type === 'conversation.item.input_audio_transcription.completed') {
    texts.set(event.item_id, event.transcript);
  }
  if (cleared && ![...texts.values()].includes(null)) {
    report('commit', [...texts.values()].join(' '));
    socket.close();
  }
});
socket.socket.on('open', () => {
  const input = {
    format: { type: 'audio/pcm', rate: 24000 },
    transcription: { model: 'gpt-4o-transcribe', language: 'en' },
    turn_detection: null,
  };
  socket.send({ type: 'session.update', session: { type: 'transcription', audio: { input } } });
  const pcm = fs.readFileSync(AUDIO_24K).subarray(44);
  for (let start = 0; start < pcm.length; start += 4800) {
    const audio = pcm.subarray(start, start + 4800).toString('base64');
    socket.send({ type: 'input_audio_buffer.append', audio });
  }
  socket.send({ type: 'input_audio_buffer.commit' });
  socket.send({ type: 'input_audio_buffer.clear' });
});
