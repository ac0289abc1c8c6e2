// The page: takes a recording, follows its job, shows the text as it arrives.

import * as api from "./api.js";
import { canRecord, Recorder } from "./recorder.js";
import * as choices from "./choices.js";
import { discard, settle } from "./editor.js";
import { Speakers } from "./speakers.js";
import { clock, Transcript } from "./transcript.js";
import { say as inTongue, wire as wireTongue } from "./tongue.js";
import { Wave } from "./wave.js";

const POLL = 500; // milliseconds between looks at a job
const PATIENCE = 10; // looks that may fail in a row: the server may be restarting
const PLAY = "M8 5v14l11-7z";
const PAUSE = "M7 5h4v14H7zm6 0h4v14h-4z";
const MOST_GAPS = 12;
const REASONS = {
  no_text: "no text found",
  repetition: "repetition cut",
  no_speech: "doubtful text over silence",
  credit_line: "invented line",
  too_fast: "doubtful text",
};
const STATES = { healthy: "good", degraded: "good", initializing: "", draining: "" };

const find = (id) => document.getElementById(id);
const show = (id, yes = true) => { find(id).hidden = !yes; };
const audio = find("audio");
const transcript = new Transcript(find("lines"), audio, correctText);
const speakers = new Speakers(find("speakers"), transcript, (by, name) => correct({ speakers: { [by]: name || null } }));
const wave = new Wave(find("wave"), audio);
const sleep = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
let run = 0; // numbers the recordings, so that an old one cannot write into a new one
let job = null;
let name = "";
let upload = null;
let able = false; // the server tells speakers apart

async function lookAtHealth() {
  const pill = find("health");
  try {
    const health = await api.health();
    pill.className = `pill ${STATES[health.status] ?? "bad"}`;
    const place = health.device === "cuda" ? "GPU" : health.device === "cpu" ? "CPU" : "";
    const queue = health.queue.jobs_queued ? inTongue("{0} waiting", health.queue.jobs_queued) : "";
    const state = health.ready ? inTongue("Ready") : inTongue("Not ready: {0}", health.worker.reason || health.worker.state);
    able = health.speakers;
    offerSpeakers();
    pill.textContent = [state, health.model, place, queue].filter(Boolean).join(" · ");
  } catch (error) {
    pill.className = "pill bad";
    pill.textContent = error.message;
  }
}

// What was chosen and cannot be done is said, and not left out silently.
function offerSpeakers() {
  const box = find("tell-speakers");
  const translates = find("task").value === "translate" && "Speakers are told apart only in what was said, not in English";
  const reason = able ? translates : "This server cannot tell speakers apart now";
  box.disabled = Boolean(reason);
  const told = reason ? inTongue(reason) : "";
  if (find("speakers-reason").textContent !== told) find("speakers-reason").textContent = told; // it is read aloud
  show("speakers-option", able || box.checked);
  choices.refresh();
}

function say(text, share) {
  find("status").textContent = text;
  if (share === undefined) find("bar").removeAttribute("value");
  else find("bar").value = share;
}

function fail(error) {
  find("error").textContent = error.message;
  show("error");
  show("cancel", false);
  say("", 0);
  if (error.status === 401) show("key-form");
}

async function begin(file, title) {
  if (!await settle()) return; // what was written stays until it is saved or left
  const mine = ++run;
  [job, name] = [null, title];
  transcript.clear();
  wave.clear();
  find("name").textContent = title;
  for (const id of ["error", "results", "subtitle-options", "nothing", "gaps", "speakers", "edit-hint"]) show(id, false);
  for (const id of ["work", "player", "cancel", "keys-hint"]) show(id);
  show("source", false);
  find("again").focus();
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(file);
  wave.load(file);
  try {
    upload = api.createJob(file, title, choices.fields(), (share) => mine === run && say(inTongue("Uploading {0} %", Math.round(share * 100)), share));
    job = await upload;
    await follow(mine);
  } catch (error) {
    if (mine === run && error.name !== "AbortError") fail(error);
  } finally {
    if (mine === run) upload = null;
  }
}

async function follow(mine) {
  let last = -1;
  let failures = 0;
  for (;;) {
    let found;
    try {
      found = await api.segments(job.id, last);
      failures = 0;
    } catch (error) {
      if (mine !== run) return;
      if ((error.status && error.status < 500 && error.status !== api.BUSY) || ++failures > PATIENCE) throw error;
      await sleep(POLL * 2);
      continue;
    }
    if (mine !== run) return;
    job = found.job;
    for (const segment of found.data) {
      last = segment.id;
      transcript.add(segment);
      wave.add(segment, job.progress.audio_seconds_total);
    }
    tell();
    if (job.finished_at && !found.data.length) return finish(mine); // the last look found nothing new
    if (!found.data.length) await sleep(POLL);
  }
}

function tell() {
  const { audio_seconds_done: done, audio_seconds_total: total } = job.progress;
  if (job.status === "queued") {
    const { position, estimated_seconds: wait } = job.queue ?? {}; // none is known of a job elsewhere in the fleet
    say(position > 1 ? inTongue("Number {0} in the queue, about {1} to go", position, clock(wait)) : inTongue("Waiting for the worker"));
  } else if (job.status === "running") {
    say(total ? inTongue("Listening: {0} of {1}", clock(done), clock(total)) : inTongue("Listening"), total ? done / total : undefined);
  }
}

// What is said of the job, in the page's language.
function retell() {
  if (job.status !== "done") return tell();
  const seconds = job.finished_at - job.started_at;
  const length = clock(job.progress.audio_seconds_total || 0);
  say(seconds > 0 ? inTongue("Done: {0} of sound, in {1} s", length, seconds) : inTongue("Done: {0} of sound", length), 1);
  showGaps(job.coverage?.dropped || []);
  speakers.retell();
  return transcript.retell();
}

async function finish(mine) {
  show("cancel", false);
  if (job.error) throw new Error(job.error.message);
  if (job.status === "cancelled") throw new Error(inTongue("Cancelled."));
  await readSpeakers(mine);
  if (mine !== run) return undefined;
  transcript.finish(job.correctable);
  if (job.correctable) speakers.show();
  show("edit-hint", job.correctable);
  retell();
  show("results");
  choices.refresh();
  show("nothing", !transcript.lines.length);
  wave.draw();
  return undefined;
}

// Who spoke is known when all was heard; the lines are cut anew then. `by` is the machine's own name.
async function readSpeakers(mine) {
  const own = await api.segments(job.id, -1, { original: true });
  if (!own.data.some(({ speaker }) => speaker)) return;
  const found = await api.segments(job.id, -1);
  if (mine !== run) return;
  transcript.clear();
  found.data.forEach((segment, place) => transcript.add({ ...segment, by: own.data[place].speaker }));
}

// Sends corrections, and says how it went. They are in all downloads then.
async function correct(changes) {
  say(inTongue("Saving"), 1);
  try {
    await api.correct(job.id, changes);
  } catch (error) {
    find("error").textContent = error.message;
    show("error");
    say(inTongue("Not saved"), 1);
    throw error;
  }
  show("error", false);
  say(inTongue("Saved; all downloads have it"), 1);
}

// Once the server has it, it is saved, also if the line cannot be read from there again.
async function correctText(segment, text) {
  const { id } = segment;
  await correct({ segments: { [id]: text } });
  const read = await api.segments(job.id, id - 1, { limit: 1 }).catch(() => ({ data: [] }));
  const written = { ...segment, text: text && segment.text.match(/^\s*/)[0] + text, words: [] };
  return read.data[0] ?? written;
}

// Nothing is left out silently: each place can be heard.
function showGaps(dropped) {
  const buttons = dropped.slice(0, MOST_GAPS).map(({ start, end, reason }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${clock(start)} ${inTongue(REASONS[reason] || reason)}`;
    button.addEventListener("click", () => transcript.play({ start, end }));
    return button;
  });
  const label = find("gaps").firstElementChild;
  const more = dropped.length > MOST_GAPS ? [inTongue("and {0} more", dropped.length - MOST_GAPS)] : [];
  find("gaps").replaceChildren(label, ...buttons, ...more);
  show("gaps", buttons.length > 0);
}

function restart() {
  run += 1;
  upload?.abort();
  audio.pause();
  show("work", false);
  show("keys-hint", false);
  show("source");
  find("choose").focus();
}

function save(blob, extension) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/\.[^.]*$/, "")}.${extension}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function guarded(action) {
  return async () => {
    try {
      await action();
    } catch (error) {
      fail(error);
    }
  };
}

// The same, once what is written in open fields is saved.
const settled = (action) => guarded(async () => { if (await settle()) await action(); });

const recorder = new Recorder(
  (seconds) => { find("record-text").firstChild.nodeValue = inTongue("Stop at {0}", clock(seconds)); },
  (blob) => {
    find("record").classList.remove("recording");
    find("record-text").firstChild.nodeValue = inTongue("Record");
    const moment = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
    begin(blob, `${inTongue("Recording {0}", moment)}${blob.type.includes("mp4") ? ".m4a" : ".webm"}`);
  },
);

function wireSource() {
  const drop = find("drop");
  const file = find("file");
  find("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files[0]) begin(file.files[0], file.files[0].name);
    file.value = "";
  });
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("dragover", () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    const dropped = event.dataTransfer.files[0];
    if (dropped) begin(dropped, dropped.name);
  });
  find("task").addEventListener("change", offerSpeakers);
  show("record", canRecord);
  show("record-hint", !canRecord);
  find("record").addEventListener("click", async () => {
    if (recorder.active) return recorder.stop();
    try {
      await recorder.start();
      return find("record").classList.add("recording");
    } catch {
      find("record-hint").textContent = inTongue("The browser may not use the microphone; allow it for this page.");
      return show("record-hint");
    }
  });
}

function wirePlayer() {
  const toggle = () => (audio.paused ? audio.play().catch(() => {}) : audio.pause());
  find("play").addEventListener("click", toggle);
  for (const [kind, icon, label] of [["play", PAUSE, "Pause"], ["pause", PLAY, "Play"]]) {
    audio.addEventListener(kind, () => {
      find("play-icon").setAttribute("d", icon);
      find("play").setAttribute("aria-label", inTongue(label));
      find("play").dataset.english = label;
    });
  }
  audio.addEventListener("timeupdate", () => { find("clock").textContent = clock(audio.currentTime); });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    const pressing = event.key === " " && event.target.closest("button");
    if (find("work").hidden || typing || pressing || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      " ": toggle,
      ArrowDown: () => transcript.step(1),
      ArrowUp: () => transcript.step(-1),
      ArrowLeft: () => wave.move(-5),
      ArrowRight: () => wave.move(5),
      F2: () => transcript.edit(),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
}

function wireResults() {
  find("again").addEventListener("click", settled(restart));
  find("cancel").addEventListener("click", guarded(async () => {
    if (job) await api.cancel(job.id);
    else restart();
  }));
  find("download").addEventListener("click", settled(async () => {
    const format = find("format").value;
    if (format === "record") return save(await api.record(job.id), "record.json");
    return save(await api.result(job.id, format, choices.downloadFields(format)), format.replace("verbose_json", "json"));
  }));
  find("copy").addEventListener("click", settled(async () => {
    await navigator.clipboard.writeText(transcript.text);
    find("copy").firstChild.nodeValue = inTongue("Copied");
    setTimeout(() => { find("copy").firstChild.nodeValue = inTongue("Copy the text"); }, 1500);
  }));
  find("delete").addEventListener("click", guarded(async () => {
    await settle(); // what is being saved must not come after the end
    await api.remove(job.id);
    discard();
    restart();
  }));
  find("key-form").addEventListener("submit", guarded(lookAtKey));
  find("key-form").addEventListener("submit", (event) => event.preventDefault());
}

async function lookAtKey() {
  if (find("key").value) api.useKey(find("key").value);
  const needed = await api.keyNeeded();
  show("key-form", needed);
  show("source", !needed);
  if (needed) find("key").focus();
}

wireTongue(() => {
  lookAtHealth();
  offerSpeakers();
  if (job && !find("work").hidden) retell();
});
wireSource();
choices.wire();
wirePlayer();
wireResults();
lookAtKey();
lookAtHealth();
setInterval(lookAtHealth, 5000);
