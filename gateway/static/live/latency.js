/* Latency as users experience it, measured in the page. */

import { clock } from "./clock.js";
import { RATE } from "./resample.js";

const RECENT = 5;

function median(values) {
  return values.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null;
}

/** Figures of one stream. `realtime`: sent at the speed of speech, else as fast as possible. */
export class Latency {
  constructor(realtime) {
    this.realtime = realtime;
    this.started = performance.now() / 1000;
    this.spoken = Infinity; // time of the stream's first sample, seconds on the page's clock
    this.sent = 0; // seconds of audio
    this.processed = 0; // seconds of audio that the service has processed
    this.began = null; // start of the utterance in the stream, until its first interim
    this.ended = null; // its end, until its final
    this.firsts = [];
    this.finals = [];
  }

  /** Counts samples that are sent now; the last of them was spoken just now. */
  sending(samples) {
    this.sent += samples / RATE;
    // The smallest delay seen is the best estimate of the capture's start.
    this.spoken = Math.min(this.spoken, performance.now() / 1000 - this.sent);
  }

  event({ audio_processed: processed, speech_event: speech, interim, final }) {
    this.processed = Math.max(this.processed, processed);
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

  /** Label, value and explanation of two figures; "–" if unknown. */
  figures() {
    if (!this.realtime) {
      const rate = this.processed / (performance.now() / 1000 - this.started);
      return [
        ["Processed", clock(this.processed), "How much of the recording has been processed"],
        ["Speed", this.processed ? `${rate.toFixed(1)}×` : "–", "Seconds of the recording processed per second"],
      ];
    }
    return [
      ["First words", inSeconds(median(this.firsts)), "From the start of speech to the first words on the screen"],
      ["Final", inSeconds(median(this.finals)), "From the end of speech to the final caption, including the pause that ends an utterance"],
    ];
  }
}

function inSeconds(value) {
  return value === null ? "–" : `${value.toFixed(1)} s`;
}
