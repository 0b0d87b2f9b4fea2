// Vercel's AI SDK. It sends response_format and timestamp_granularities[] together.
import fs from 'node:fs';
import * as ai from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { AUDIO, BASE, KEY, report } from './report.mjs';

const openai = createOpenAI({ baseURL: BASE, apiKey: KEY });
const transcribe = ai.transcribe ?? ai.experimental_transcribe;
for (const model of ['whisper-1', 'gpt-4o-transcribe']) {
  const answer = await transcribe({
    model: openai.transcription(model),
    audio: fs.readFileSync(AUDIO),
    maxRetries: 0,
  });
  report(model, answer.text);
}
