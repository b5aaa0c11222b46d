/* How long people wait for words, measured where they do: here. */

import { clock } from "./clock.js";
import { RATE } from "./resample.js";

const RECENT = 5;

function median(values) {
  return values.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null;
}

/** For one stream that is sent as it is spoken, or faster. */
export class Latency {
  constructor(realtime) {
    this.realtime = realtime;
    this.started = performance.now() / 1000;
    this.spoken = Infinity; // when the stream's first sample was spoken, seconds on the page's clock
    this.sent = 0; // seconds
    this.heard = 0; // seconds that the service has heard
    this.began = null; // where the speech of the utterance began, until its first words are there
    this.ended = null; // where it ended, until its final is there
    this.firsts = [];
    this.finals = [];
  }

  /** So many samples are sent now, the last of which was spoken just now. */
  sending(samples) {
    this.sent += samples / RATE;
    // The least delay that was seen is the closest to none.
    this.spoken = Math.min(this.spoken, performance.now() / 1000 - this.sent);
  }

  event({ audio_processed: heard, speech_event: speech, interim, final }) {
    this.heard = Math.max(this.heard, heard);
    if (speech?.type === "STARTED") this.began = speech.offset;
    if (speech?.type === "ENDED") this.ended = speech.offset;
    if (interim && this.began !== null) {
      this.#keep(this.firsts, this.began);
      this.began = null;
    }
    if (final && this.ended !== null) {
      this.#keep(this.finals, this.ended);
      this.began = this.ended = null;
    }
  }

  #keep(values, since) {
    values.push(Math.max(0, performance.now() / 1000 - this.spoken - since));
    if (values.length > RECENT) values.shift();
  }

  /** Label, value and explanation of two figures; "–" where nothing is known yet. */
  figures() {
    if (!this.realtime) {
      const rate = this.heard / (performance.now() / 1000 - this.started);
      return [
        ["Heard", clock(this.heard), "How much of the recording has been heard"],
        ["Speed", this.heard ? `${rate.toFixed(1)}×` : "–", "Seconds of the recording heard in a second"],
      ];
    }
    return [
      ["First words", inSeconds(median(this.firsts)), "From when somebody speaks to the first words on the screen"],
      ["Final", inSeconds(median(this.finals)), "From when somebody falls silent to the final caption, the pause that ends it included"],
    ];
  }
}

function inSeconds(value) {
  return value === null ? "–" : `${value.toFixed(1)} s`;
}
