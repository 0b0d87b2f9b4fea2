// What this browser remembers: choices, and where people stopped to listen.

const memory = {}; // what the browser does not store, because its storage is full or off

const read = (name, fallback) => {
	try { return memory[name] ?? JSON.parse(localStorage.getItem(`asr-${name}`)) ?? fallback; } catch { return fallback; }
};
const write = (name, value) => {
	delete memory[name];
	try { localStorage.setItem(`asr-${name}`, JSON.stringify(value)); } catch { memory[name] = value; }
};

export const RULES = { max_line_width: 42, max_line_count: 2, max_cue_duration: 7, min_cue_duration: 0.833, max_cps: 20, min_gap: 0.083 };
export const rules = () => ({ ...RULES, ...read("rules", {}) });
export const setRules = (value) => write("rules", value);
export const options = () => ({ language: "", channels: "mix", vocabulary: "", prompt: "", ...read("options", {}) });
export const setOptions = (value) => write("options", value);
export const setting = (name, fallback) => read("settings", {})[name] ?? fallback;
export const setSetting = (name, value) => write("settings", { ...read("settings", {}), [name]: value });

export const position = (job) => read("positions", []).find(([id]) => id === job)?.[1] ?? 0;
export function setPosition(job, seconds) {
	const others = read("positions", []).filter(([id]) => id !== job);
	write("positions", [[job, Math.round(seconds * 10) / 10], ...others].slice(0, 100));
}
export const changedRules = () => Object.entries(rules()).filter(([name, value]) => value !== RULES[name]);
