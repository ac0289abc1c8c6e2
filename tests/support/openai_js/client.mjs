// OpenAI's JavaScript client in Node: sends requests as tests/clients/client.py does.
// `node client.mjs BASE_URL [RECORDING]`
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import OpenAI, { APIError, toFile } from "openai";

const WORKERS = 8;
const recording = process.argv[3] && readFileSync(process.argv[3]);
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });

async function send(number, route, fields) {
  const file = await toFile(recording ?? Buffer.from(`RIFF everything ${number}`), `clip.c${number}`);
  try {
    const asked = client.audio[route].create({ file, model: "whisper-1", ...fields });
    const { data, response } = await asked.withResponse();
    let shown = data;
    if (fields.stream) {
      shown = [];
      for await (const event of data) shown.push(event);
    }
    const header = (name) => response.headers.get(name);
    const headers = Object.fromEntries(["x-transcribe-model", "x-transcribe-warnings"].map((name) => [name, header(name)]));
    return { status: 200, kind: typeof data, shown, ...headers };
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { status: error.status, param: error.param, message: error.message };
  }
}

const wanted = [];
for await (const line of createInterface({ input: process.stdin })) wanted.push(JSON.parse(line));
const found = new Array(wanted.length);
let next = 0;
const work = async () => {
  for (let mine = next++; mine < wanted.length; mine = next++) found[mine] = await send(...wanted[mine]);
};
await Promise.all(Array.from({ length: WORKERS }, work));
for (const answer of found) console.log(JSON.stringify(answer));
