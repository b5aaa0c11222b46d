/* Cues of subtitles, identical to the service's own: stt_client/cues.py, which explains the method. Live segments have
   neither words nor channels, so characters share the time of their segment equally. */

import { endsClause, endsSentence, units, width, withoutSpace } from "./units.js";

const ROOM = 42; // columns
const LINES = 2;
const MIN_CUE = 1000; // milliseconds, as all times here
const MAX_CUE = 7000;
const PAUSE = 300;
const LONG_PAUSE = 1000;

const PHRASE_BROKEN = 8;
const CLAUSE_BROKEN = 2;
const SENTENCES_JOINED = 1;
const PAUSE_JOINED = 20;
const TOO_SHORT = 10;
const FULL = 2;
const LINE = 1000;
const UNBALANCED = 10;

/** Cues `{start, end, lines}` in order of time. Segments without text are left out. */
export function cues(segments) {
  const stream = unitsOf(segments);
  const reach = reachOf(stream);
  const columns = columnsOf(stream);
  const breaks = stream.map((unit, i) => (i + 1 < stream.length ? costOfBreaking(unit, stream[i + 1]) : 0));
  const joins = [0];
  for (let i = 1; i < stream.length; i += 1) joins.push(joins[i - 1] + costOfJoining(stream[i - 1], stream[i]));

  const cost = (first, end) => {
    const { start } = stream[first];
    if (end > first + 1 && (end > reach[first] || stream[end - 1].end - start > MAX_CUE)) return null;
    const shown = end < stream.length ? Math.min(MIN_CUE, stream[end].start - start) : MIN_CUE;
    const short = TOO_SHORT * (1 - shown / MIN_CUE);
    const full = FULL * (columns(first, end) / (ROOM * LINES)) ** 2;
    return breaks[end - 1] + joins[end - 1] - joins[first] + short + full;
  };
  return scheduled(
    cheapest(stream.length, cost).map(([first, end]) => ({
      start: stream[first].start,
      end: stream[end - 1].end,
      lines: linesOf(stream.slice(first, end)),
    })),
  );
}

function unitsOf(segments) {
  const found = [];
  for (const segment of segments) {
    const words = segment.text.split(/\s+/).filter(Boolean);
    const count = [...words.join("")].length;
    const from = milliseconds(segment.start);
    const span = Math.max(0, milliseconds(segment.end) - from);
    let at = 0;
    for (const word of words) {
      units(word, ROOM).forEach((text, number) => {
        const first = at === 0;
        const before = found.at(-1);
        const start = Math.max(from + Math.floor((span * at) / count), before ? before.start : 0);
        at += [...text].length;
        const end = Math.max(from + Math.floor((span * at) / count), start);
        const spaced = number === 0 && !(first && before && withoutSpace(before.text, text));
        found.push({ start, end, text, spaced, first });
      });
    }
  }
  return found;
}

function milliseconds(seconds) {
  return Math.floor(Math.max(0, seconds) * 1000 + 0.5);
}

/* Returns the function of the columns of a line of units `first` to `end`, which is excluded. */
function columnsOf(stream) {
  const sums = [0];
  for (const unit of stream) sums.push(sums.at(-1) + width(unit.text) + Number(unit.spaced));
  return (first, end) => sums[end] - sums[first] - Number(stream[first].spaced);
}

function reachOf(stream) {
  const columns = columnsOf(stream);
  const ends = [];
  let end = 0;
  for (let first = 0; first < stream.length; first += 1) {
    end = Math.max(end, first + 1);
    while (end < stream.length && columns(first, end + 1) <= ROOM) end += 1;
    ends.push(end);
  }
  ends.push(stream.length);
  let reach = ends;
  for (let line = 1; line < LINES; line += 1) reach = reach.map((it) => ends[it]);
  return reach;
}

function costOfJoining(last, following) {
  if (following.start - last.end >= LONG_PAUSE) return PAUSE_JOINED;
  return following.first || endsSentence(last.text) ? SENTENCES_JOINED : 0;
}

function costOfBreaking(last, following) {
  if (following.first || endsSentence(last.text)) return 0;
  return following.start - last.end >= PAUSE || endsClause(last.text) ? CLAUSE_BROKEN : PHRASE_BROKEN;
}

function linesOf(cue) {
  const columns = columnsOf(cue);
  const total = columns(0, cue.length);
  const cost = (first, end) => {
    const line = columns(first, end);
    if (end > first + 1 && line > ROOM) return null;
    const broken = end === cue.length ? 0 : costOfBreaking(cue[end - 1], cue[end]) / 4;
    return LINE + broken + UNBALANCED * (line / total) ** 2;
  };
  return cheapest(cue.length, cost).map(([first, end]) =>
    cue
      .slice(first, end)
      .map(({ text, spaced }) => (spaced ? " " : "") + text)
      .join("")
      .trimStart(),
  );
}

/* Divides `count` items into runs `[first, end]` of the least total cost; a cost of null ends the longer ones. */
function cheapest(count, cost) {
  const totals = [0, ...Array(count).fill(Infinity)];
  const begins = Array(count + 1).fill(0);
  for (let first = 0; first < count; first += 1) {
    for (let end = first + 1; end <= count; end += 1) {
      const own = cost(first, end);
      if (own === null) break;
      if (totals[first] + own < totals[end]) {
        totals[end] = totals[first] + own;
        begins[end] = first;
      }
    }
  }
  const runs = [];
  for (let end = count; end; end = begins[end]) runs.unshift([begins[end], end]);
  return runs;
}

function scheduled(all) {
  const shown = [];
  let least = 0;
  for (const { start: from, end: to, lines } of all) {
    const start = Math.max(from, least);
    const before = shown.at(-1);
    if (before) before.end = Math.min(Math.max(before.end, before.start + MIN_CUE), start);
    const needed = Math.min(MIN_CUE, Math.max(1, to - from));
    shown.push({ start, end: Math.min(Math.max(to, start + needed), start + MAX_CUE), lines });
    least = start + needed;
  }
  const last = shown.at(-1);
  if (last) last.end = Math.max(last.end, last.start + MIN_CUE);
  return shown;
}
