// What every script needs: where the server is, and how to report a transcript.
export const ROOT = process.env.CLIENT_ROOT;
export const BASE = `${ROOT}/v1`;
export const KEY = process.env.CLIENT_KEY;
export const AUDIO = process.env.CLIENT_AUDIO;
export const AUDIO_24K = process.env.CLIENT_AUDIO_24K;
export const report = (what, text) => console.log(JSON.stringify({ what, text }));
