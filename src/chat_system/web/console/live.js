// A chat's live changes: one stream of server-sent events that is opened again, where it was left, as often as it ends.
//
// It is read with fetch rather than EventSource, which tells neither why a server refuses (an erased application is no
// broken connection) nor that a connection died without a word.

import { Problem, problemOf } from "./api.js";

/** @import { Message } from "./types.js" */

/** The server sends something every 15 s: after this long a silence there is no connection. */
const SILENCE_MAX_MS = 40_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 15_000;

/** Why a connection that is still being made is given up: another is wanted at once. */
const AGAIN = "again";

/**
 * @typedef {object} State
 * @property {"connecting" | "live" | "waiting" | "paused" | "gone"} phase
 * @property {number} [retryInMs] while waiting
 * @property {Problem} [problem] why it waits, or why it is gone
 */

/** Reads the lines of a stream into events. Feed it pieces as they come. */
export class EventReader {
  #rest = "";
  #data = "";
  /** Milliseconds to wait before the stream is opened again, as the server wishes. */
  retryMs = RETRY_MS;

  /**
   * @param {string} text
   * @returns {string[]} the data of each event that is complete with it
   */
  feed(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = /** @type {string} */ (lines.pop());
    const events = [];
    for (const line of lines) {
      const [, name, content] = /^([^:]*):? ?(.*?)\r?$/su.exec(line) ?? ["", "", ""];
      if (name === "" && content === "" && this.#data) {
        events.push(this.#data);
        this.#data = "";
      } else if (name === "data") this.#data += this.#data ? `\n${content}` : content;
      else if (name === "retry" && /^\d+$/.test(content)) this.retryMs = Number(content);
    }
    return events;
  }
}

export class Live {
  #url;
  #onMessages;
  #onState;
  #revision = 0;
  #attempts = 0;
  #closed = false;
  /** Ends the connection that is open. */
  #connection = new AbortController();
  #connecting = false;
  /** Ends the wait for the next attempt. */
  #wake = () => {};

  /**
   * @param {(after: number) => URL} url
   * @param {(messages: Message[]) => void} onMessages
   * @param {(state: State) => void} onState
   */
  constructor(url, onMessages, onState) {
    this.#url = url;
    this.#onMessages = onMessages;
    this.#onState = onState;
  }

  /** @param {number} revision all up to this one is known */
  start(revision) {
    this.#revision = revision;
    document.addEventListener("visibilitychange", this.#onVisibility);
    window.addEventListener("online", this.retry);
    void this.#run();
  }

  /** End for good. */
  close() {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#onVisibility);
    window.removeEventListener("online", this.retry);
    this.#connection.abort();
    this.#wake();
  }

  /** Try again now instead of later. */
  retry = () => {
    this.#attempts = 0;
    // What is asked for over a network that is no more may never be answered.
    if (this.#connecting) this.#connection.abort(AGAIN);
    this.#wake();
  };

  // A tab that no one sees holds no connection: a browser has few of them for one server, and what was missed comes
  // when the tab is seen again.
  #onVisibility = () => {
    if (document.hidden) this.#connection.abort();
    else this.retry();
  };

  async #run() {
    while (!this.#closed) {
      if (document.hidden) {
        this.#onState({ phase: "paused" });
        await this.#pause(Infinity);
        continue;
      }
      const problem = await this.#connect();
      if (this.#closed || document.hidden || this.#connection.signal.reason === AGAIN) continue;
      if (problem && !problem.passes) {
        this.#onState({ phase: "gone", problem });
        return;
      }
      const retryInMs = Math.max(
        Math.min(this.#retryMs * 2 ** this.#attempts, RETRY_MAX_MS),
        (problem?.retryAfterS ?? 0) * 1000,
      );
      this.#attempts += 1;
      this.#onState({ phase: "waiting", retryInMs, problem });
      await this.#pause(retryInMs);
    }
  }

  #retryMs = RETRY_MS;

  /** @returns {Promise<Problem | undefined>} why there is no connection any more; nothing if it just ended */
  async #connect() {
    this.#onState({ phase: "connecting" });
    const connection = (this.#connection = new AbortController());
    this.#connecting = true;
    let silence = 0;
    // From the beginning: after a sleep or a change of network not even the head of an answer may come.
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MAX_MS);
    };
    heard();
    try {
      const response = await fetch(this.#url(this.#revision), {
        headers: { Accept: "text/event-stream", "Last-Event-ID": String(this.#revision) },
        signal: connection.signal,
        cache: "no-store",
      });
      if (!response.ok || !response.body) return await problemOf(response);
      this.#connecting = false;
      this.#onState({ phase: "live" });
      await this.#read(response.body, heard);
      return undefined;
    } catch {
      return new Problem(0, "unreachable", "The connection is broken.");
    } finally {
      clearTimeout(silence);
      this.#connecting = false;
    }
  }

  /**
   * @param {ReadableStream<Uint8Array>} body
   * @param {() => void} heard called when something came
   */
  async #read(body, heard) {
    const events = new EventReader();
    const decoder = new TextDecoder();
    const reader = body.getReader();
    for (;;) {
      heard();
      const { done, value } = await reader.read();
      if (done) return;
      this.#attempts = 0;
      const messages = events.feed(decoder.decode(value, { stream: true })).map((data) => JSON.parse(data));
      this.#retryMs = events.retryMs;
      if (messages.length) {
        this.#onMessages(messages);
        this.#revision = messages[messages.length - 1].revision;
      }
    }
  }

  /** @param {number} ms */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = ms === Infinity ? 0 : setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }
}
