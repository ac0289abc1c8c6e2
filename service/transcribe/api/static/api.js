// The requests that the page makes. Every failure is an Error whose message can be shown.

import { say } from "./tongue.js";

export const BUSY = 429; // the status of an answer that there is none now, and when to ask again
const TRIES = 5; // that are answered so, until it is said

let key = sessionStorage.getItem("key") || "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("key", value);
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function failure(status, body) {
  let message = say("The server answered {0}.", status);
  try {
    message = JSON.parse(body).error.message;
  } catch { /* not OpenAI's error object: the status must do */ }
  const error = new Error(message);
  error.status = status;
  return error;
}

async function send(method, path, changes) {
  const sent = changes && { body: JSON.stringify(changes) };
  const kind = changes && { "Content-Type": "application/json" };
  try {
    return await fetch(path, { method, headers: { ...headers(), ...kind }, ...sent });
  } catch {
    throw new Error(say("The server cannot be reached."));
  }
}

// Every request here may be sent again: it has the same effect.
async function ask(method, path, changes) {
  let answer = await send(method, path, changes);
  for (let tries = 1; answer.status === BUSY && tries < TRIES; tries += 1) {
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });
    answer = await send(method, path, changes);
  }
  if (!answer.ok) throw await failure(answer.status, await answer.text());
  return answer;
}

export async function health() {
  return (await ask("GET", "health")).json();
}

export async function keyNeeded() {
  try {
    await ask("GET", "v1/models");
    return false;
  } catch (error) {
    return error.status === 401;
  }
}

// Uploads with progress, which fetch cannot tell; `abort` on the promise ends it.
export function createJob(file, name, fields, onProgress) {
  const form = new FormData();
  form.append("model", "whisper-1");
  for (const [field, values] of Object.entries(fields)) {
    for (const value of [values].flat()) if (value) form.append(field, value);
  }
  form.append("file", file, name);
  const request = new XMLHttpRequest();
  const promise = new Promise((resolve, reject) => {
    request.open("POST", "v1/jobs");
    for (const [header, value] of Object.entries(headers())) request.setRequestHeader(header, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = async () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText));
      else reject(await failure(request.status, request.responseText));
    };
    request.onerror = () => reject(new Error(say("The upload was interrupted; is the server running?")));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.send(form);
  });
  promise.abort = () => request.abort();
  return promise;
}

export async function segments(id, after, more = {}) {
  return (await ask("GET", `v1/jobs/${id}/segments?${new URLSearchParams({ after, ...more })}`)).json();
}

export const correct = (id, changes) => ask("PATCH", `v1/jobs/${id}/corrections`, changes);

export async function result(id, format, more = {}) {
  return (await ask("GET", `v1/jobs/${id}/result?${new URLSearchParams({ format, ...more })}`)).blob();
}

export const record = async (id) => (await ask("GET", `v1/jobs/${id}/record`)).blob();

export const cancel = (id) => ask("POST", `v1/jobs/${id}/cancel`);
export const remove = (id) => ask("DELETE", `v1/jobs/${id}`);
