// Classify many texts, in portions that the server accepts, one after the other. Independent of the page.

import { askPatiently, pause, ServerError } from "./client.js";
import { count } from "./dom.js";

const FIRST = 16; // texts; then as many as are answered in a moment
const QUICK = 0.4; // seconds
const SLOW = 2;
const FRAME = '{"texts":[]}'.length;
const PORTION = new Set([400, 413, 422, 500, 504]); // it may be one text, or their number: tried in halves
const MOST_FAILURES = 4; // one after the other, until the connection counts as lost
const MOST_REFUSALS = 20; // one after the other with no text answered, until it is not the texts

const bytes = new TextEncoder();

/** How many characters a text has as the server counts them; an emoji is one. */
export function characters(text) {
  let pairs = 0;
  for (let at = 0; at < text.length - 1; at += 1) {
    if (text.codePointAt(at) > 0xffff) {
      pairs += 1;
      at += 1;
    }
  }
  return text.length - pairs;
}

/** A text as the server counts it: one string, in which the fields of a text (an array) have a separator between them. */
export const whole = (text) => (typeof text === "string" ? text : text.join("\x1f"));

/** A sentence for a text that the server would not take, or null. */
export function problemOf(text, limits) {
  const all = whole(text);
  if (all.length > limits.max_text_length) {
    const length = characters(all);
    if (length > limits.max_text_length) {
      return `too long: ${count(length)} characters, and the server takes ${count(limits.max_text_length)}`;
    }
  }
  return null;
}

/** A text, or its fields, as JSON, whatever halves of surrogate pairs it holds. */
const asJson = (text) => JSON.stringify(typeof text === "string" ? text.toWellFormed() : text.map((field) => field.toWellFormed()));

/** The body of a request for these texts. */
export const bodyOf = (texts) => `{"texts":[${texts.map(asJson).join(",")}]}`;

/**
 * The answers for many texts.
 *
 * answers[i] is null until text i had its turn, then {labels, scores} with the names that apply and the
 * probabilities in the order of info.labels, or {problem} with a sentence.
 */
export class Job {
  constructor(texts, info) {
    this.texts = texts;
    this.labels = info.labels.map(({ label }) => label);
    this.limits = info.limits;
    this.answers = new Array(texts.length).fill(null);
    this.next = 0; // the first text that had no turn
    this.size = FIRST;
  }

  get finished() {
    return this.next === this.texts.length;
  }

  /** Go on until all texts had their turn. `progress` is told after each portion, and of pauses in seconds. */
  async run(signal, progress = () => {}) {
    let failures = 0;
    let refusals = 0;
    while (!this.finished) {
      const portion = this.portion();
      try {
        if (portion.rows.length > 0) {
          await this.ask(portion, signal, progress);
          refusals = 0;
        }
        failures = 0;
        this.next = portion.end;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof ServerError)) {
          throw error;
        }
        if (error.status === 0 && failures < MOST_FAILURES) {
          failures += 1;
          progress(failures);
          await pause(failures, signal);
        } else if (PORTION.has(error.status) && portion.rows.length > 1) {
          this.size = Math.ceil(portion.rows.length / 2);
        } else if (PORTION.has(error.status) && refusals < MOST_REFUSALS) {
          refusals += 1;
          this.answers[portion.rows[0]] = { problem: error.message };
          this.next = portion.end;
        } else {
          throw error;
        }
      }
      progress(0);
    }
  }

  /** The next texts that go together: their rows, the body, and where the following portion begins. */
  portion() {
    const rows = [];
    const parts = [];
    let length = FRAME;
    let end = this.next;
    for (; end < this.texts.length && rows.length < Math.min(this.size, this.limits.max_texts); end += 1) {
      const problem = problemOf(this.texts[end], this.limits);
      if (problem) {
        this.answers[end] = { problem };
        continue;
      }
      const part = asJson(this.texts[end]);
      const more = bytes.encode(part).length + 1;
      if (FRAME + more > this.limits.max_body) {
        const problem = `too long: ${count(more)} bytes, and the server takes ${count(this.limits.max_body)}`;
        this.answers[end] = { problem };
        continue;
      }
      if (length + more > this.limits.max_body) {
        break;
      }
      length += more;
      rows.push(end);
      parts.push(part);
    }
    return { rows, end, body: `{"texts":[${parts.join(",")}]}` };
  }

  async ask({ rows, body }, signal, waiting) {
    const began = performance.now();
    let paused = 0;
    const { results } = await askPatiently("v1/classify", {
      body,
      signal,
      waiting: (seconds) => {
        paused += 1000 * seconds;
        waiting(seconds);
      },
    });
    rows.forEach((row, index) => {
      const { labels, scores } = results[index];
      const values = Float64Array.from(this.labels, (label) => (Object.hasOwn(scores, label) ? scores[label] : NaN));
      if (values.some(Number.isNaN)) {
        throw new ServerError("The server has another model now; reload the page and begin again.", 409);
      }
      this.answers[row] = { labels, scores: values };
    });
    const seconds = (performance.now() - began - paused) / 1000;
    if (seconds < QUICK) {
      this.size = Math.min(2 * this.size, this.limits.max_texts);
    } else if (seconds > SLOW) {
      this.size = Math.max(1, Math.floor(this.size / 2));
    }
  }

  /** How many texts were answered, have any label, have each label, and had a problem. */
  summary() {
    const counts = new Map(this.labels.map((label) => [label, 0]));
    let answered = 0;
    let labelled = 0;
    let problems = 0;
    for (const answer of this.answers) {
      if (answer?.problem) {
        problems += 1;
      } else if (answer) {
        answered += 1;
        labelled += answer.labels.length > 0 ? 1 : 0;
        for (const label of answer.labels) {
          counts.set(label, counts.get(label) + 1);
        }
      }
    }
    return { answered, labelled, problems, counts };
  }
}
