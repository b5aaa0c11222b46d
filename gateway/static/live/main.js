/* Controls of the page, and the run of a stream from start to end. */

import { Captions } from "./captions.js";
import { clock } from "./clock.js";
import { Latency } from "./latency.js";
import { Meter } from "./meter.js";
import { Microphone, Recording, SourceError } from "./sources.js";
import { LiveStream } from "./stream.js";
import { save, srt, txt, vtt } from "./subtitles.js";
import { LANGUAGES, describeError, languageName } from "./words.js";
import { RATE } from "./resample.js";

const $ = (id) => document.getElementById(id);
const KEY = "stt-key";

const captions = new Captions($("page"));
const meter = new Meter($("meter"));
let run = null; // the current run, from start to end
let retry = null; // action of "Try again"

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
  const hasCaptions = captions.finals.length > 0;
  $("welcome").hidden = hasCaptions || state !== "idle";
  $("exports").hidden = !hasCaptions;
  $("clear").disabled = state !== "idle";
}

function showError(error, again) {
  const { title, advice, retryable } = describeError(error);
  $("trouble-title").textContent = title;
  $("trouble-advice").textContent = advice;
  $("again").hidden = !(retryable && again);
  retry = again;
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

/* Runs a stream from the source that `open` returns to its last final. */
async function start(open, realtime, listening) {
  const mine = { source: null, stream: null, latency: new Latency(realtime), listening, cancelled: false };
  run = mine;
  $("trouble").hidden = true;
  show("opening");
  let error = null;
  try {
    mine.source = await open();
    if (mine.cancelled) mine.source.abandon();
    else error = await transfer(mine, config(realtime));
  } catch (failure) {
    if (!(failure instanceof SourceError)) console.error(failure);
    mine.stream?.abandon();
    error = { type: failure.code || "internal", message: failure.message };
  }
  if (run !== mine) return; // cancelled, and perhaps restarted
  finishRun();
  $("progress").hidden = true;
  $("meter").hidden = false;
  show("idle", error ? "Stopped" : "Done");
  if (error) showError(error, () => start(open, realtime, listening));
  if (error?.type === "unauthenticated") openSettings($("key"));
}

/* Sends the source's audio and shows the events. Resolves to the error, or null. */
async function transfer(mine, config) {
  const { source, latency } = mine;
  const stream = new LiveStream(config, (event) => run === mine && showEvent(event, latency));
  mine.stream = stream;
  const end = stream.closed.then((error) => {
    source.stop();
    return error;
  });
  if (await stream.opened) {
    show("live", mine.listening);
    captions.streamBegan();
    const lock = wakeLock();
    await source.run((pcm, level) => sendAudio(mine, pcm, level), () => stream.waiting);
    (await lock)?.release();
    if (run === mine) show("finishing");
    stream.end();
  } else source.abandon();
  return end;
}

/* Ends the run; times of the next one follow it. */
function finishRun() {
  captions.streamEnded(run.latency.sent);
  run = null;
}

function sendAudio({ source, stream, latency }, pcm, level) {
  stream.send(pcm);
  latency.sending(pcm.length);
  meter.add(level);
  $("clock").textContent = clock(captions.offset + latency.sent);
  if (source.seconds) $("progress").value = latency.sent / source.seconds;
  showFigures(latency);
}

function showEvent(event, latency) {
  latency.event(event);
  if (event.interim) captions.interim(event.interim);
  if (event.final) captions.final(event.final);
  if (event.final) $("exports").hidden = !captions.finals.length;
  showFigures(latency);
}

function showFigures(latency) {
  const found = latency.figures();
  ["first", "second"].forEach((id, i) => {
    const [label, value, meaning] = found[i];
    $(`${id}-label`).textContent = label;
    $(id).textContent = value;
    $(id).parentElement.title = meaning;
  });
}

/* Keeps a phone's screen on if the browser supports it. */
async function wakeLock() {
  try {
    return await navigator.wakeLock?.request("screen");
  } catch {
    return null;
  }
}

/* Stops the audio and lets the service finish; while connecting or finishing, cancels at once. */
function stop() {
  const mine = run;
  if ($("start").dataset.state === "live") {
    mine.source.stop();
    return;
  }
  finishRun();
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
    // Storage may be disabled; the key is then kept until the page is closed.
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

async function showService() {
  try {
    const about = await (await fetch("v1/health")).json();
    if (!about.model) throw new Error("no answer");
    captions.primary = about.model;
    $("service").textContent = about.ok ? `${about.model} on ${about.device}` : `${about.model} is not ready`;
  } catch {
    $("service").textContent = "The service is unreachable";
  }
}

function addListeners() {
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
  $("again").addEventListener("click", () => !run && retry?.());
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

/* Lists the languages of the loaded model. */
async function listLanguages() {
  let codes = [];
  try {
    codes = (await (await fetch("v1/metrics")).json()).languages || [];
  } catch {
    // showService tells that the service is unreachable
  }
  const named = (codes.length ? codes : LANGUAGES).map((code) => [languageName(code), code]).sort(([a], [b]) => a.localeCompare(b));
  $("language").append(...named.map(([name, code]) => new Option(name, code)));
}

/* Some browsers name microphones only while one is in use; otherwise the list stays as it is. */
async function listMicrophones() {
  const found = await Microphone.list();
  if (!found.length) return;
  const chosen = $("microphone").value;
  $("microphone").replaceChildren(...[["Browser default", ""], ...found].map(([name, id]) => new Option(name, id)));
  $("microphone").value = found.some(([, id]) => id === chosen) ? chosen : "";
  $("microphones").hidden = found.length < 2;
}

listLanguages();
restoreKey();
addListeners();
show("idle");
showService();
