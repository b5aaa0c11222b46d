/* The page: what its buttons do, and what it shows of a stream. */

import { Captions } from "./captions.js";
import { clock } from "./clock.js";
import { Latency } from "./latency.js";
import { Meter } from "./meter.js";
import { Microphone, Recording, SourceError } from "./sources.js";
import { LiveStream } from "./stream.js";
import { save, srt, txt, vtt } from "./subtitles.js";
import { LANGUAGES, languageName, trouble } from "./words.js";
import { RATE } from "./resample.js";

const $ = (id) => document.getElementById(id);
const KEY = "stt-key";

const captions = new Captions($("page"));
const meter = new Meter($("meter"));
let run = null; // {source, stream} from start to end
let repeat = null; // what "Try again" does

const STATES = {
  idle: ["Start", "Ready"],
  opening: ["Cancel", "Connecting"],
  live: ["Stop", "Listening"],
  finishing: ["Cancel", "Finishing"],
};

function show(state, status = STATES[state][1]) {
  $("start").dataset.state = state;
  $("start-label").textContent = STATES[state][0];
  $("status").textContent = status;
  $("choose").disabled = state !== "idle";
  const something = captions.finals.length > 0;
  $("welcome").hidden = something || state !== "idle";
  $("exports").hidden = !something;
  $("clear").disabled = state !== "idle";
}

function complain(error, again) {
  const said = trouble(error);
  $("trouble-title").textContent = said.title;
  $("trouble-advice").textContent = said.advice;
  $("again").hidden = !(said.again && again);
  repeat = again;
  $("trouble").hidden = false;
}

function config(realtime) {
  return {
    ...($("key").value.trim() && { api_key: $("key").value.trim() }),
    encoding: "linear16",
    sample_rate_hertz: RATE,
    interim_results: realtime,
    language: $("language").value,
    task: $("translate").checked ? "translate" : "transcribe",
  };
}

/* From a source that `open` gives to the last final. */
async function start(open, realtime, listening) {
  const mine = { source: null, stream: null, latency: new Latency(realtime), listening, cancelled: false };
  run = mine;
  $("trouble").hidden = true;
  show("opening");
  let error = null;
  try {
    mine.source = await open();
    if (mine.cancelled) mine.source.abandon();
    else error = await pass(mine, config(realtime));
  } catch (failure) {
    if (!(failure instanceof SourceError)) console.error(failure);
    mine.stream?.abandon();
    error = { type: failure.code || "internal", message: failure.message };
  }
  if (run !== mine) return; // cancelled, and perhaps begun anew
  over();
  $("progress").hidden = true;
  $("meter").hidden = false;
  show("idle", error ? "Stopped" : "Done");
  if (error) complain(error, () => start(open, realtime, listening));
  if (error?.type === "unauthenticated") openSettings($("key"));
}

/* Passes the source's audio on and shows what comes back. What went wrong, or null. */
async function pass(mine, config) {
  const { source, latency } = mine;
  const stream = new LiveStream(config, (event) => run === mine && hear(event, latency));
  mine.stream = stream;
  const end = stream.closed.then((error) => {
    source.stop();
    return error;
  });
  if (await stream.opened) {
    show("live", mine.listening);
    captions.streamBegan();
    const lock = wakeLock();
    await source.run((pcm, level) => take(mine, pcm, level), () => stream.waiting);
    (await lock)?.release();
    if (run === mine) show("finishing");
    stream.end();
  } else source.abandon();
  return end;
}

/* The run is over: what comes next has times that follow it. */
function over() {
  captions.streamEnded(run.latency.sent);
  run = null;
}

function take({ source, stream, latency }, pcm, level) {
  stream.send(pcm);
  latency.sending(pcm.length);
  meter.add(level);
  $("clock").textContent = clock(captions.offset + latency.sent);
  if (source.seconds) $("progress").value = latency.sent / source.seconds;
  figures(latency);
}

function hear(event, latency) {
  latency.event(event);
  if (event.interim) captions.interim(event.interim);
  if (event.final) captions.final(event.final);
  if (event.final) $("exports").hidden = !captions.finals.length;
  figures(latency);
}

function figures(latency) {
  const found = latency.figures();
  ["first", "second"].forEach((id, i) => {
    const [label, value, meaning] = found[i];
    $(`${id}-label`).textContent = label;
    $(id).textContent = value;
    $(id).parentElement.title = meaning;
  });
}

/* Keeps a phone's screen on where the browser can. */
async function wakeLock() {
  try {
    return await navigator.wakeLock?.request("screen");
  } catch {
    return null;
  }
}

/* Once the audio has an end, what was said is still finished; before and after that, all is dropped. */
function stop() {
  const mine = run;
  if ($("start").dataset.state === "live") {
    mine.source.stop();
    return;
  }
  over();
  mine.cancelled = true;
  mine.stream?.abandon();
  show("idle", "Cancelled");
}

function listen() {
  return start(() => Microphone.open($("microphone").value), true, "Listening");
}

function transcribe(file) {
  if (!file || run) return null;
  const realtime = $("realtime").checked;
  $("progress").value = 0;
  $("progress").hidden = realtime;
  $("meter").hidden = !realtime;
  return start(() => Recording.open(file, realtime), realtime, file.name);
}

function openSettings(focused) {
  listMicrophones();
  if (!$("settings").open) $("settings").showModal();
  focused?.focus();
}

function keepKey() {
  try {
    if ($("keep").checked && $("key").value) sessionStorage.setItem(KEY, $("key").value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be forbidden: the key then lives as long as the page.
  }
}

function restoreKey() {
  try {
    $("key").value = sessionStorage.getItem(KEY) || "";
  } catch {
    $("key").value = "";
  }
  $("keep").checked = $("key").value !== "";
}

const FORMATS = {
  txt: () => save("captions.txt", "text/plain", txt(captions.finals)),
  srt: () => save("captions.srt", "application/x-subrip", srt(captions.segments)),
  vtt: () => save("captions.vtt", "text/vtt", vtt(captions.segments)),
};

async function lookForService() {
  try {
    const about = await (await fetch("v1/health")).json();
    if (!about.model) throw new Error("no answer");
    captions.primary = about.model;
    $("service").textContent = about.ok ? `${about.model} on ${about.device}` : `${about.model} is not ready`;
  } catch {
    $("service").textContent = "The service can't be reached";
  }
}

function wire() {
  $("start").addEventListener("click", () => (run ? stop() : listen()));
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    transcribe($("file").files[0]);
    $("file").value = "";
  });
  $("open-settings").addEventListener("click", () => openSettings());
  $("close-settings").addEventListener("click", () => $("settings").close());
  $("settings").addEventListener("close", keepKey);
  navigator.mediaDevices?.addEventListener("devicechange", listMicrophones);
  $("key").addEventListener("keydown", ({ key }) => key === "Enter" && $("settings").close());
  $("dismiss").addEventListener("click", () => ($("trouble").hidden = true));
  $("again").addEventListener("click", () => !run && repeat?.());
  $("clear").addEventListener("click", () => {
    captions.clear();
    meter.clear();
    $("clock").textContent = clock(0);
    show("idle");
    $("start").focus();
  });
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => FORMATS[button.dataset.format]());
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    transcribe(event.dataTransfer.files[0]);
  });
}

function listLanguages() {
  const named = LANGUAGES.map((code) => [languageName(code), code]).sort(([a], [b]) => a.localeCompare(b));
  $("language").append(...named.map(([name, code]) => new Option(name, code)));
}

/* A choice is offered where there is one. Some browsers name microphones only while one listens: then it stays as it is. */
async function listMicrophones() {
  const found = await Microphone.list();
  if (!found.length) return;
  const chosen = $("microphone").value;
  $("microphone").replaceChildren(...[["The browser's choice", ""], ...found].map(([name, id]) => new Option(name, id)));
  $("microphone").value = found.some(([, id]) => id === chosen) ? chosen : "";
  $("microphones").hidden = found.length < 2;
}

listLanguages();
restoreKey();
wire();
show("idle");
lookForService();
