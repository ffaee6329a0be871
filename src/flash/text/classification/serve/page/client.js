// Client of the server: sends the API key if needed, and retries while the server is busy. Independent of the page.

const STORE = "flash-key"; // in the tab's own storage, which ends with the tab
const BUSY = new Set([429, 503]);
const LONGEST_PAUSE = 60; // seconds
const MOST_PAUSES = 60;

/** Error response; the message is the server's, if it sent one. `status` 0: no response. */
export class ServerError extends Error {
  constructor(message, status = 0, seconds = null) {
    super(message);
    this.status = status;
    this.seconds = seconds; // after which to come again
  }
}

let key = stored();
let keyWanted = async () => ""; // until the page says how
let asking = null;

function stored() {
  try {
    return sessionStorage.getItem(STORE) ?? "";
  } catch {
    return ""; // the browser has no storage
  }
}

/** Use this key from now on; "" forgets it. */
export function setKey(value) {
  key = value;
  try {
    if (value) {
      sessionStorage.setItem(STORE, value);
    } else {
      sessionStorage.removeItem(STORE);
    }
  } catch {
    // then the key lasts as long as the page
  }
}

export const hasKey = () => key !== "";

/** Set the function that asks the user for a key and resolves to it. */
export function onKeyWanted(handler) {
  keyWanted = handler;
}

function wantKey() {
  asking ??= keyWanted()
    .then(setKey)
    .finally(() => {
      asking = null;
    });
  return asking;
}

/** Ask once; a 401 waits for a key and asks again. `body` is JSON text. Raises ServerError, or what `signal` raises. */
export async function ask(path, { body, signal, plain = false } = {}) {
  for (;;) {
    const used = key;
    const headers = {};
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
    }
    if (used) {
      headers.Authorization = `Bearer ${used}`;
    }
    const method = body === undefined ? "GET" : "POST";
    let response;
    let content;
    try {
      response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
      content = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof TypeError && used && /[^\x20-\xff]/.test(used)) {
        setKey("");
        throw new ServerError("The key has a character that no key can have; it was forgotten.", 401);
      }
      throw new ServerError("The server does not answer. Is it still running?");
    }
    if (response.status === 401) {
      if (used === key) {
        await abortable(wantKey(), signal);
      }
      continue;
    }
    if (!response.ok) {
      throw new ServerError(sentenceOf(content, response), response.status, secondsOf(response));
    }
    if (plain) {
      return content;
    }
    try {
      return JSON.parse(content);
    } catch {
      throw new ServerError("Something else than the server answered, perhaps a proxy; reload the page.", response.status);
    }
  }
}

/** Like `ask`, but retry after the seconds that a busy server names; `waiting` gets them. */
export async function askPatiently(path, { body, signal, waiting = () => {} } = {}) {
  for (let pauses = 0; ; pauses += 1) {
    try {
      return await ask(path, { body, signal });
    } catch (error) {
      if (!(error instanceof ServerError) || !BUSY.has(error.status) || pauses === MOST_PAUSES) {
        throw error;
      }
      const seconds = Math.min(Math.max(error.seconds ?? 1, 0.1), LONGEST_PAUSE);
      waiting(seconds);
      await pause(seconds, signal);
    }
  }
}

/** Wait some seconds, unless `signal` aborts. */
export const pause = (seconds, signal) => abortable(new Promise((done) => setTimeout(done, 1000 * seconds)), signal);

function abortable(promise, signal) {
  if (!signal) {
    return promise;
  }
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) {
      stop();
      return;
    }
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** The server's error message. */
function sentenceOf(content, response) {
  try {
    const { error, detail } = JSON.parse(content);
    const sentence = error?.message ?? error ?? detail;
    if (typeof sentence === "string" && sentence.trim()) {
      return written(sentence.trim());
    }
  } catch {
    // not JSON, such as a proxy's page
  }
  return `The server answered ${`${response.status} ${response.statusText}`.trimEnd()}.`;
}

/** Turn a message into a sentence: with a capital, unless it begins with a name, and a full stop. */
const written = (sentence) =>
  (/^[a-z]+[ ,]/.test(sentence) ? sentence[0].toUpperCase() + sentence.slice(1) : sentence) +
  (/[.!?]$/.test(sentence) ? "" : ".");

/** Retry-After: seconds, or a date. */
function secondsOf(response) {
  const value = response.headers.get("Retry-After");
  if (value === null) {
    return null;
  }
  const seconds = /^\s*\d+\s*$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? seconds : null;
}
